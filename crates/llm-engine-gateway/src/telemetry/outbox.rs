//! Spans that have ended, on their way to the collector: gathered for some seconds, sent together. Nobody waits for that. Those
//! for which there is no room, and those that the collector does not take, are lost and counted.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::SetupError;
use crate::clients::Clients;
use crate::connect::{Connector, Proxies};
use crate::metrics::SpanCounts;

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(5);
/// As many as are sent together.
const BATCH: usize = 512;
/// As many as wait, which is some megabytes.
const ROOM: usize = 8 * BATCH;
/// How long connecting to the collector may take, and how long sending to it.
const CONNECT: Duration = Duration::from_secs(5);
const SEND: Duration = Duration::from_secs(10);
/// How long sending what is left may take at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// How often it is said that spans are lost.
const SAY: Duration = Duration::from_secs(60);
/// The longest answer of a collector.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where spans wait, and what sends them to the collector at this base URL, with these headers.
pub(super) fn outbox(
    (endpoint, headers): (Option<String>, HeaderMap),
    proxies: &Arc<Proxies>,
    resource: &Resource,
    counts: SpanCounts,
) -> Result<(Outbox, Sending), SetupError> {
    let connector = Connector::new(CONNECT, &[], Arc::clone(proxies));
    let connector = connector.map_err(SetupError::TelemetryTls)?;
    let collector = Collector(Arc::new(CollectorShared {
        clients: Clients::new(connector),
        headers,
        proxies: Arc::clone(proxies),
        error: Mutex::default(),
    }));
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(collector.clone());
    if let Some(base) = endpoint {
        exporter = exporter.with_endpoint(format!("{}/v1/traces", base.trim_end_matches('/')));
    }
    let mut exporter = exporter.build()?;
    exporter.set_resource(resource);
    let (sender, spans) = mpsc::channel(ROOM);
    let is_batch = Arc::new(Notify::new());
    let outbox = Outbox {
        spans: sender,
        is_batch: Arc::clone(&is_batch),
        counts: counts.clone(),
    };
    let sending = Sending {
        spans,
        on_their_way: 0,
        is_batch,
        exporter,
        collector,
        counts,
        said: Said::default(),
    };
    Ok((outbox, sending))
}

/// Where spans wait.
#[derive(Debug)]
pub(super) struct Outbox {
    spans: mpsc::Sender<SpanData>,
    /// Wakes up who sends before the time.
    is_batch: Arc<Notify>,
    counts: SpanCounts,
}

impl SpanProcessor for Outbox {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.lost.inc();
        } else if self.spans.max_capacity() - self.spans.capacity() >= BATCH {
            self.is_batch.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What sends them.
#[derive(Debug)]
pub(super) struct Sending {
    spans: mpsc::Receiver<SpanData>,
    /// How many of them are on their way now.
    on_their_way: u64,
    is_batch: Arc<Notify>,
    exporter: SpanExporter,
    collector: Collector,
    counts: SpanCounts,
    said: Said,
}

/// How many lost spans the log knows of, and since when.
#[derive(Debug, Default)]
struct Said {
    lost: u64,
    at: Option<Instant>,
}

impl Sending {
    /// Sends until it is told to stop, and then what is left, if that does not take long.
    pub(super) async fn until(mut self, stop: CancellationToken) {
        let too_late = async {
            stop.cancelled().await;
            sleep(FLUSH).await;
        };
        tokio::select! {
            () = self.send_all(&stop) => {}
            () = too_late => self.lose(self.on_their_way + self.spans.len() as u64),
        }
        self.said.at = None;
        self.say_what_is_lost();
    }

    async fn send_all(&mut self, stop: &CancellationToken) {
        let mut is_last = false;
        while !is_last {
            let batch_or_time = timeout(GATHER, self.is_batch.notified());
            is_last = stop.run_until_cancelled(batch_or_time).await.is_none();
            let mut waiting = self.spans.len();
            while waiting > 0 {
                let mut batch = Vec::with_capacity(BATCH.min(waiting));
                waiting -= self.spans.recv_many(&mut batch, BATCH.min(waiting)).await;
                self.send(batch).await;
            }
            self.say_what_is_lost();
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        self.on_their_way = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.counts.sent.inc_by(self.on_their_way);
            }
            Err(error) => {
                let mut known = self.collector.0.error.lock();
                known.get_or_insert_with(|| error.to_string());
                drop(known);
                self.lose(self.on_their_way);
            }
        }
        self.on_their_way = 0;
    }

    fn lose(&self, spans: u64) {
        self.counts.lost.inc_by(spans);
    }

    fn say_what_is_lost(&mut self) {
        let lost = self.counts.lost.get();
        let is_said = self.said.at.is_some_and(|at| at.elapsed() < SAY);
        if lost == self.said.lost || is_said {
            return;
        }
        let spans = lost - self.said.lost;
        let error = self.collector.0.error.lock().take();
        let error = error.unwrap_or_else(|| "the collector was too slow".to_owned());
        tracing::warn!(spans, error, "spans of requests are lost");
        self.said = Said {
            lost,
            at: Some(Instant::now()),
        };
    }
}

/// The way to the collector.
#[derive(Debug, Clone)]
struct Collector(Arc<CollectorShared>);

#[derive(Debug)]
struct CollectorShared {
    clients: Clients<Connector>,
    headers: HeaderMap,
    proxies: Arc<Proxies>,
    /// What went wrong, until it is said.
    error: Mutex<Option<String>>,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let Self(shared) = self;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let sent = timeout(SEND, shared.send(request)).await;
        let sent = sent.unwrap_or_else(|too_late| Err(too_late.into()));
        // The exporter keeps it to itself.
        sent.inspect_err(|error| *shared.error.lock() = Some(format!("{host}: {}", cause(&**error))))
    }
}

impl CollectorShared {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let proxy_authorization = self.proxies.authorization(request.uri());
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(proxy_authorization.map(|value| (PROXY_AUTHORIZATION, value)));
        let (head, body) = self.clients.request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// What an error says that comes from other errors: the first of them.
fn cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests;
