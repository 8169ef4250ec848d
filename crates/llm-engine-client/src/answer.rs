use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use llm_engine_retry::Attempt;

/// A whole answer, of a status that means success.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// Its status, 200 to 299.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The attempts before it, all of which failed; empty if the first one succeeded.
    pub failed_attempts: Vec<Attempt>,
}

impl Answer {
    /// What the server calls the request, for `llm-engine explain` and for questions to its operator.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        request_id(&self.headers)
    }

    /// How many attempts were made, at least 1.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.failed_attempts.len() + 1
    }
}

pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-request-id")?.to_str().ok()
}
