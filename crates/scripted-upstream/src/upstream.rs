use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::exchange::{self, Exchange};

/// The upstream; it ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    arrivals: mpsc::UnboundedReceiver<Exchange>,
    server: AbortHandle,
}

impl Upstream {
    /// Starts listening.
    ///
    /// # Panics
    /// If no loopback port can be had.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// Starts listening at this address, such as that of one that was dropped.
    ///
    /// # Panics
    /// If it can't be had.
    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a loopback port");
        let url = format!("http://{}/v1", listener.local_addr().expect("its address"));
        let (sender, arrivals) = mpsc::unbounded_channel();
        let router = Router::new().fallback(arrive).with_state(sender);
        // An event that waited for the acknowledgement of the one before would come late by the clock of a test.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let server = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Self {
            url,
            arrivals,
            server,
        }
    }

    /// Starts listening, and answers every request by this function.
    pub async fn answering(answer: impl Fn(Exchange) + Send + 'static) -> String {
        let mut upstream = Self::start().await;
        let url = upstream.url.clone();
        tokio::spawn(async move {
            while let Some(exchange) = upstream.arrivals.recv().await {
                answer(exchange);
            }
        });
        url
    }

    /// The URL up to and including `/v1`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next request.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn next(&mut self) -> Exchange {
        self.arrivals.recv().await.expect("the upstream is running")
    }

    /// A request that has already arrived.
    pub fn arrived(&mut self) -> Option<Exchange> {
        self.arrivals.try_recv().ok()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn arrive(State(arrivals): State<mpsc::UnboundedSender<Exchange>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let (reply, answer) = oneshot::channel();
    let exchange = Exchange {
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        reply,
    };
    if arrivals.send(exchange).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // A test that drops the exchange wants the connection to break without an answer.
    let cut = || Response::new(Body::from_stream(exchange::broken()));
    answer.await.unwrap_or_else(|_| cut())
}
