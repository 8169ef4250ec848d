//! LLM Engine's own first API: `/v1/llm/completions-sync` and `/v1/llm/completions-stream`, as callers speak it, and to deployments
//! that speak it.

mod answer;
mod endpoint;
mod request;
mod response;
mod upstream;

pub use answer::{AnswerError, AnswerReader};
pub use endpoint::{Endpoint, EndpointList, EndpointStatus};
pub use request::{CompletionRequest, Guided, RequestError};
pub use response::{Frame, Output, StreamError, StreamErrorContent, StreamOutput, SyncResponse, TokenOutput};
pub use upstream::Unsayable;
