//! What the model worker offers beside OpenAI's dialect: exact token counts, and a cancel that says what was used.
//!
//! `/tokenize` has the form of vLLM's route of that name, so that a gateway can ask either.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openai::Usage;

/// The header by which the gateway names a request, so that it can cancel it later.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// `POST /tokenize`: a prompt, or the messages of a chat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizeRequest {
    /// The deployment's own name of the model.
    #[serde(default)]
    pub model: String,
    /// A prompt that is used as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
    /// The messages of a chat, to which the model's chat template is applied first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Value>,
}

/// The answer to [`TokenizeRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizeResponse {
    /// How many tokens the prompt has.
    pub count: u64,
    /// The most tokens, prompt and answer together, that one request may have.
    pub max_model_len: u64,
    /// The tokens.
    #[serde(default)]
    pub tokens: Vec<u32>,
}

/// `POST /cancel`: ends a request at the next decode step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// What [`REQUEST_ID_HEADER`] said.
    pub request_id: String,
}

/// The answer to [`CancelRequest`], given when the model no longer works on the request. 404 if it is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelResponse {
    /// All that the request has used.
    pub usage: Usage,
}
