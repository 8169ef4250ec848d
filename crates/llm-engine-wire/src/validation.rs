//! The 422 answer of LLM Engine's routes: every problem of a request at once, in the form that FastAPI gives them.
//!
//! The public servers check requests with pydantic in its lax mode; callers rely on what it accepts (`"7"` and `2.0` for
//! an integer) and programs read its `type` and `loc`. The readers here accept and refuse the same.

mod body;
mod fields;
mod form;
mod json_mistake;
mod readers;
mod schema;

pub use body::Body;
pub use fields::Fields;
pub use form::{Field, Form};
pub use readers::{Bound, boolean, dictionary, integer, number, string, strings};
pub use schema::body_schema;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Problem {
    /// A stable word for programs, such as `missing`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where: `body` or `query`, then names and indexes.
    pub loc: Vec<Loc>,
    /// One sentence for a person.
    pub msg: String,
    /// What was sent there.
    pub input: Value,
    /// The bound that was passed, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

/// One step of the way to a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Loc {
    /// A part of the request or the name of a field.
    Name(&'static str),
    /// A position in a list, or in the text of a body that is not JSON.
    Index(usize),
}

impl Problem {
    /// A required field that is not there; `input` is what should hold it.
    #[must_use]
    pub fn missing(loc: Vec<Loc>, input: Value) -> Self {
        Self {
            kind: "missing",
            loc,
            msg: "Field required".to_owned(),
            input,
            ctx: None,
        }
    }
}
