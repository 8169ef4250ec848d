use serde_json::{Map, Value};

/// One row of the input: a request to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its place in the input, from 0.
    pub number: u64,
    /// The id it came with, a text or a number; else its place from 1, as a text.
    pub id: Value,
    /// Where it wants to be sent, if it says so: the `url` of OpenAI's batch lines.
    pub target: Option<String>,
    /// The request.
    pub fields: Map<String, Value>,
    /// How many bytes of the input it is.
    pub bytes: usize,
}

/// A row that can't be read: it is answered by an error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadRow {
    /// Where it is in the input, from 1.
    pub line: u64,
    /// The id, as far as it could be made out.
    pub id: Value,
    /// What is wrong.
    pub what: String,
}

impl Row {
    /// The model it names; empty if it names none.
    #[must_use]
    pub fn model(&self) -> &str {
        self.fields
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The most output tokens it asks for, by any of the names for that.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<u64> {
        let names = ["max_new_tokens", "max_completion_tokens", "max_tokens"];
        names.iter().find_map(|name| self.fields.get(*name)?.as_u64())
    }
}
