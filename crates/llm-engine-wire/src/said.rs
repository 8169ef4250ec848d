//! What a server says of a failure, in any of the forms that servers of these dialects use.

use std::time::Duration;

use serde_json::Value;

/// What could be read.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    /// One sentence for a person.
    pub message: Option<String>,
    /// A stable word.
    pub code: Option<String>,
    /// The family of the error, such as `invalid_request_error`.
    pub kind: Option<String>,
    /// The field of the request that it is about.
    pub param: Option<String>,
    /// The policy that refused.
    pub policy: Option<String>,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// Whether that time is kept.
    pub is_booked: bool,
    /// The name of the request.
    pub request_id: Option<String>,
}

/// The most of a body that is no JSON which is worth showing, in characters.
const SHOWN: usize = 200;

impl Said {
    /// Reads the body of an answer: `{"detail": …, "error": {…}}` or `{"error": {…}}`, or else any text.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value @ Value::Object(_)) => {
                let said = Self::from_error(&value["error"]);
                let message = detail(&value["detail"])
                    .or(said.message)
                    .or_else(|| text(&value["message"]));
                Self { message, ..said }
            }
            _ => Self {
                message: plain(body),
                ..Self::default()
            },
        }
    }

    /// Reads an error object; some servers send a text in its place.
    #[must_use]
    pub fn from_error(error: &Value) -> Self {
        let code = text(&error["code"]).or_else(|| error["code"].as_i64().map(|code| code.to_string()));
        Self {
            message: text(&error["message"]).or_else(|| text(error)),
            code,
            kind: text(&error["type"]),
            param: text(&error["param"]),
            policy: text(&error["policy"]),
            retry_after: error["retry_after_ms"].as_u64().map(Duration::from_millis),
            is_booked: error["booked"] == true,
            request_id: text(&error["request_id"]),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A sentence, or a list of what is wrong with each field.
fn detail(detail: &Value) -> Option<String> {
    let Value::Array(problems) = detail else {
        return text(detail);
    };
    let problems: Vec<String> = problems
        .iter()
        .filter_map(|problem| {
            let place: Vec<String> = problem["loc"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
                .collect();
            Some(format!("{}: {}", place.join("."), problem["msg"].as_str()?))
        })
        .collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn plain(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    (!shown.is_empty()).then_some(shown)
}
