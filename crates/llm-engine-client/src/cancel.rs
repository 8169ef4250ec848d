use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::AUTHORIZATION;
use tokio::runtime::Handle;

use crate::client::Shared;
use crate::json::path_segment;

/// Tells the server, when it is dropped, that nobody wants the answer any more: a server that keeps requests whose
/// connection broke can't know it by itself.
pub(crate) struct Cancel {
    shared: Arc<Shared>,
    idempotency_key: String,
    /// Whether no other call ever has this key. Then also an attempt is meant that has not arrived yet.
    is_unique: bool,
    /// From a `Drop` there may be no other way to the runtime.
    runtime: Option<Handle>,
    /// Whether the server may be at work.
    pub(crate) is_armed: bool,
}

/// Nobody waits for it, and a server that is not there must not keep it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// An attempt that was sent by another connection, just before, has arrived by then.
const AHEAD_SECONDS: &str = "5";

impl Cancel {
    pub(crate) fn new(shared: Arc<Shared>, idempotency_key: String, is_unique: bool) -> Self {
        Self {
            shared,
            idempotency_key,
            is_unique,
            runtime: Handle::try_current().ok(),
            is_armed: false,
        }
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take().filter(|_| self.is_armed) else {
            return;
        };
        let shared = &self.shared;
        let path = format!("/v1/requests/{}", path_segment(&self.idempotency_key));
        let ahead = [("ahead_seconds".to_owned(), AHEAD_SECONDS.to_owned())];
        let query = if self.is_unique { &ahead[..] } else { &[] };
        let mut request = shared
            .transport
            .request(Method::DELETE, shared.base.join(&path, query))
            .timeout(TIMEOUT);
        if let Some(authorization) = &shared.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        // Whatever the answer is, there is nothing more to do.
        let sent = async move {
            if let Ok(answer) = request.send().await {
                // To the end, so that the connection can be used again.
                drop(answer.bytes().await);
            }
        };
        shared.cancels.spawn_on(sent, &runtime);
    }
}
