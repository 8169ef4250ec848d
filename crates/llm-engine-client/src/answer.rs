use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use llm_engine_retry::Attempt;

/// A whole answer, of a status that means success.
///
/// ```no_run
/// use llm_engine_client::{Call, Client};
///
/// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
/// let answer = client.call(Call::get("/v1/limits")).await?;
/// println!("{} at attempt {}: {:?}", answer.status, answer.attempts(), answer.body);
/// if let Some(request_id) = answer.request_id() {
///     println!("llm-engine explain {request_id}");
/// }
/// # Ok(())
/// # }
/// ```
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
