use serde_json::{Map, Value, json};

use super::json_mistake::{Mistake, first_mistake};
use super::{Loc, Problem};

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A request body, read as far as its content type says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Nothing was sent.
    Empty,
    /// It was sent as JSON.
    Json(Value),
    /// It was sent as something else.
    Text(String),
}

impl Body {
    /// Reads the body.
    ///
    /// # Errors
    /// A [`Problem`] if it was sent as JSON and is none.
    pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, Box<Problem>> {
        if bytes.is_empty() {
            return Ok(Self::Empty);
        }
        if !content_type.is_some_and(is_json) {
            return Ok(Self::Text(String::from_utf8_lossy(bytes).into_owned()));
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match serde_json::from_slice(bytes) {
            Ok(Value::Null) => Ok(Self::Empty),
            Ok(value) => Ok(Self::Json(value)),
            Err(_) => Err(Box::new(invalid_json(bytes))),
        }
    }

    /// The fields of the body.
    ///
    /// # Errors
    /// A [`Problem`] if the body is not a JSON object.
    pub fn fields(&self) -> Result<&Map<String, Value>, Box<Problem>> {
        let input = match self {
            Self::Json(Value::Object(fields)) => return Ok(fields),
            Self::Empty => return Err(Box::new(Problem::missing(vec![Loc::Name("body")], Value::Null))),
            Self::Json(value) => value.clone(),
            Self::Text(text) => Value::from(text.as_str()),
        };
        Err(Box::new(Problem {
            kind: "model_attributes_type",
            loc: vec![Loc::Name("body")],
            msg: "Input should be a valid dictionary or object to extract fields from".to_owned(),
            input,
            ctx: None,
        }))
    }
}

/// `application/json`, or any `application/…+json`.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let subtype = media_type.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn invalid_json(bytes: &[u8]) -> Problem {
    let text: Vec<char> = String::from_utf8_lossy(bytes).chars().collect();
    let Mistake { position, words } = first_mistake(&text);
    Problem {
        kind: "json_invalid",
        loc: vec![Loc::Name("body"), Loc::Index(position)],
        msg: "JSON decode error".to_owned(),
        input: json!({}),
        ctx: Some(json!({ "error": words })),
    }
}
