use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thread_local::ThreadLocal;

/// Connections to one server. Each thread keeps some for itself: a request that used another thread's would wake that one up
/// for each of its steps.
pub(crate) struct Clients<C: Send> {
    connector: C,
    of_threads: ThreadLocal<Client<C, Full<Bytes>>>,
}

/// A connection that is not used for so long is closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// Over HTTP/2 the other side is asked after such a pause whether it is still there, and given so long to answer.
const HTTP2_PING: Duration = Duration::from_secs(30);

impl<C: Connect + Clone + Send + Sync + 'static> Clients<C> {
    pub(crate) fn new(connector: C) -> Self {
        Self {
            connector,
            of_threads: ThreadLocal::new(),
        }
    }

    /// Sends a request by a connection of this thread.
    pub(crate) fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        let client = self.of_threads.get_or(|| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_CONNECTION)
                .http2_keep_alive_interval(HTTP2_PING)
                .http2_keep_alive_timeout(HTTP2_PING)
                .build(self.connector.clone())
        });
        client.request(request)
    }
}

impl<C: Send> fmt::Debug for Clients<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}
