use serde_json::{Map, Value, json};

use super::{Loc, Problem};

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
        match serde_json::from_slice(bytes) {
            Ok(Value::Null) => Ok(Self::Empty),
            Ok(value) => Ok(Self::Json(value)),
            Err(error) => Err(Box::new(invalid_json(bytes, &error))),
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

fn invalid_json(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let text = String::from_utf8_lossy(bytes);
    let lines_before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let position = lines_before.map(|line| line.chars().count()).sum::<usize>() + error.column();
    Problem {
        kind: "json_invalid",
        loc: vec![Loc::Name("body"), Loc::Index(position)],
        msg: "JSON decode error".to_owned(),
        input: json!({}),
        ctx: Some(json!({ "error": python_message(error) })),
    }
}

/// The words of Python's `json` module, which is what callers of the public servers see.
fn python_message(error: &serde_json::Error) -> &'static str {
    let message = error.to_string();
    const WORDS: [(&str, &str); 7] = [
        (
            "EOF while parsing an object",
            "Expecting property name enclosed in double quotes",
        ),
        (
            "key must be a string",
            "Expecting property name enclosed in double quotes",
        ),
        ("expected `:`", "Expecting ':' delimiter"),
        ("expected `,`", "Expecting ',' delimiter"),
        ("trailing characters", "Extra data"),
        ("EOF while parsing a string", "Unterminated string starting at"),
        ("control character", "Invalid control character at"),
    ];
    let known = WORDS.iter().find(|(ours, _)| message.starts_with(ours));
    known.map_or("Expecting value", |(_, python)| python)
}
