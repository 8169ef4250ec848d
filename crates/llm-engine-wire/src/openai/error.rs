use serde::{Deserialize, Serialize};

/// What every failed request of this dialect answers: `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The one member.
    pub error: ErrorObject,
}

/// OpenAI's error object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// One sentence for a person.
    pub message: String,
    /// The family of the error, such as `invalid_request_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The field of the request that was wrong.
    #[serde(default)]
    pub param: Option<String>,
    /// A stable word for programs. OpenAI-compatible servers also send numbers here.
    #[serde(default)]
    pub code: serde_json::Value,
}

impl ErrorBody {
    /// An error of the caller's making.
    #[must_use]
    pub fn invalid_request(message: String, param: Option<&str>, code: &str) -> Self {
        Self {
            error: ErrorObject {
                message,
                kind: "invalid_request_error".to_owned(),
                param: param.map(str::to_owned),
                code: code.into(),
            },
        }
    }
}
