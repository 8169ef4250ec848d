use std::fmt::Write as _;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span as SentSpan;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SentStatus;
use prost::Message as _;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// A collector of traces, to which they are sent by OTLP over HTTP; it ends when this is dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    arrivals: mpsc::UnboundedReceiver<Export>,
    server: AbortHandle,
}

/// Spans that have arrived and wait to be taken.
#[derive(Debug)]
pub struct Export {
    /// The path that they were sent to.
    pub path: String,
    /// The headers that they were sent with.
    pub headers: HeaderMap,
    /// What is said of their sender.
    pub resource: Map<String, Value>,
    /// The spans.
    pub spans: Vec<Span>,
    /// All of it, as it was encoded.
    pub body: Vec<u8>,
    reply: oneshot::Sender<StatusCode>,
}

/// A span, as a test reads it. Ids are in hexadecimal.
#[derive(Debug)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// Whether it is one of a server (2) or of a client (3), in OTLP's numbers.
    pub kind: i32,
    /// The trace that it belongs to.
    pub trace_id: String,
    /// Its name in the trace.
    pub span_id: String,
    /// That of its parent; empty if it has none.
    pub parent_span_id: String,
    /// What tracing systems say to each other.
    pub trace_state: String,
    /// Whether it ended with an error.
    pub is_error: bool,
    /// What else is said of it.
    pub attributes: Map<String, Value>,
}

impl Collector {
    /// Starts listening.
    ///
    /// # Panics
    /// If no loopback port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (sender, arrivals) = mpsc::unbounded_channel();
        let router = Router::new().fallback(arrive).with_state(sender);
        let server = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Self {
            url,
            arrivals,
            server,
        }
    }

    /// The URL below which `/v1/traces` is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next spans.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn next(&mut self) -> Export {
        self.arrivals.recv().await.expect("the collector is running")
    }

    /// Spans that have already arrived.
    pub fn arrived(&mut self) -> Option<Export> {
        self.arrivals.try_recv().ok()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Export {
    /// Takes the spans.
    pub fn take(self) -> Vec<Span> {
        let _ = self.reply.send(StatusCode::OK);
        self.spans
    }

    /// Does not take them.
    pub fn refuse(self, status: StatusCode) {
        let _ = self.reply.send(status);
    }
}

async fn arrive(State(arrivals): State<mpsc::UnboundedSender<Export>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let Ok(sent) = ExportTraceServiceRequest::decode(body.clone()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (reply, answer) = oneshot::channel();
    let resource = sent.resource_spans.first().and_then(|of| of.resource.clone());
    let scopes = sent.resource_spans.into_iter().flat_map(|of| of.scope_spans);
    let export = Export {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        resource: attributes(resource.unwrap_or_default().attributes),
        spans: scopes.flat_map(|scope| scope.spans).map(span).collect(),
        body: body.to_vec(),
        reply,
    };
    // A test that forgets them has taken them.
    let status = match arrivals.send(export) {
        Ok(()) => answer.await.unwrap_or(StatusCode::OK),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, ExportTraceServiceResponse::default().encode_to_vec()).into_response()
}

fn span(sent: SentSpan) -> Span {
    Span {
        name: sent.name,
        kind: sent.kind,
        trace_id: hexadecimal(&sent.trace_id),
        span_id: hexadecimal(&sent.span_id),
        parent_span_id: hexadecimal(&sent.parent_span_id),
        trace_state: sent.trace_state,
        is_error: sent
            .status
            .is_some_and(|status| status.code() == SentStatus::Error),
        attributes: attributes(sent.attributes),
    }
}

fn attributes(sent: Vec<KeyValue>) -> Map<String, Value> {
    let value = |sent: KeyValue| match sent.value?.value? {
        Any::StringValue(text) => Some(text.into()),
        Any::BoolValue(value) => Some(value.into()),
        Any::IntValue(number) => Some(number.into()),
        Any::DoubleValue(number) => Some(number.into()),
        other => Some(Value::from(format!("{other:?}"))),
    };
    let named = sent
        .into_iter()
        .filter_map(|sent| Some((sent.key.clone(), value(sent)?)));
    named.collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
