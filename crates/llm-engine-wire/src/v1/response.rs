use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer of the sync route. Nulls are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SyncResponse {
    /// Identifies the request.
    pub request_id: String,
    /// The completion.
    pub output: Output,
}

/// A whole completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// The text.
    pub text: String,
    /// Tokens of the prompt.
    pub num_prompt_tokens: Option<u64>,
    /// Tokens generated.
    pub num_completion_tokens: u64,
    /// Each token, if asked for.
    pub tokens: Option<Vec<TokenOutput>>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenOutput {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub log_prob: f64,
}

/// One event of the stream route. One of the two members is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Identifies the request; the same in each frame.
    pub request_id: String,
    /// What was added.
    pub output: Option<StreamOutput>,
    /// Why the stream ends early.
    pub error: Option<StreamError>,
}

/// What a frame adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamOutput {
    /// Text to append.
    pub text: String,
    /// Only in the last frame.
    pub finished: bool,
    /// Only in the last frame.
    pub num_prompt_tokens: Option<u64>,
    /// Tokens generated so far.
    pub num_completion_tokens: Option<u64>,
    /// The token, if log-probabilities were asked for.
    pub token: Option<TokenOutput>,
}

/// An error after the stream has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamError {
    /// The HTTP status that it would have been.
    pub status_code: u16,
    /// The words.
    pub content: StreamErrorContent,
}

/// The words of a [`StreamError`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamErrorContent {
    /// One sentence for a person.
    pub error: String,
    /// When, in RFC 3339's form.
    pub timestamp: String,
}
