use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::tally::Answer;

/// A request for a stream, as often as it is sent.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) url: String,
    pub(crate) api_key: String,
    pub(crate) body: Bytes,
    /// Tokens of its answer.
    pub(crate) output: u64,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Ended {
    Answered(Answer),
    Refused(Refused),
    /// The first token did not come in time.
    HungUp,
    Failed(String),
}

/// When to come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) wait: Duration,
    pub(crate) is_booked: bool,
}

/// How an answer begins.
enum Begun {
    Stream { body: Incoming, first: Bytes },
    Refused(Refused),
}

impl Call {
    /// Sends it once, and waits for the first token for so long. `on_first` is told how long that took.
    pub(crate) async fn send(&self, patience: Duration, on_first: impl FnOnce(Duration)) -> Ended {
        let sent = Instant::now();
        let (body, first) = match timeout(patience, self.begin()).await {
            Err(_) => return Ended::HungUp,
            Ok(Err(error)) => return Ended::Failed(error),
            Ok(Ok(Begun::Refused(refused))) => return Ended::Refused(refused),
            Ok(Ok(Begun::Stream { body, first })) => (body, first),
        };
        let waited = sent.elapsed();
        on_first(waited);
        match self.read_rest(body, &first).await {
            Ok(()) => Ended::Answered(Answer {
                first: waited,
                others: sent.elapsed().saturating_sub(waited),
            }),
            Err(error) => Ended::Failed(error),
        }
    }

    async fn begin(&self) -> Result<Begun, String> {
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", self.api_key))
            .body(Full::new(self.body.clone()))
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| format!("not sent: {error}"))?;
        match response.status() {
            StatusCode::OK => {
                let mut body = response.into_body();
                let first = next(&mut body).await?.ok_or("an empty stream")?;
                Ok(Begun::Stream { body, first })
            }
            StatusCode::TOO_MANY_REQUESTS => refused(response).await.map(Begun::Refused),
            status => Err(format!("{status}: {}", text(response).await)),
        }
    }

    /// Reads to the end, which has to be the proper one.
    async fn read_rest(&self, mut body: Incoming, first: &[u8]) -> Result<(), String> {
        let mut answer = first.to_vec();
        while let Some(bytes) = next(&mut body).await? {
            answer.extend_from_slice(&bytes);
        }
        let last = &answer[answer.len().saturating_sub(ENDING)..];
        let last = String::from_utf8_lossy(last);
        let usage = format!("\"completion_tokens\":{}", self.output);
        if last.ends_with("data: [DONE]\n\n") && last.contains(&usage) {
            Ok(())
        } else {
            Err(format!(
                "an answer of {} tokens that ends with {last}",
                self.output
            ))
        }
    }
}

/// Bytes within which the usage and the end are.
const ENDING: usize = 1_000;

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("an answer broke off: {error}"))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

async fn refused(response: Response<Incoming>) -> Result<Refused, String> {
    let wait = wait(response.headers()).ok_or("a refusal without retry-after-ms")?;
    let body: Value = serde_json::from_str(&text(response).await).unwrap_or_default();
    let is_booked = body["error"]["booked"] == true;
    Ok(Refused { wait, is_booked })
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    let wait = headers.get("retry-after-ms")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(wait))
}

async fn text(response: Response<Incoming>) -> String {
    match response.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    }
}
