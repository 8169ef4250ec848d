use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::uri::Authority;
use http::{Method, Request as HttpRequest, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyperlocal::UnixConnector;
use jiff::Timestamp;
use llm_engine_limit::Name;
use llm_engine_wire::openai::{Kind, Request, Upstream, Usage};
use llm_engine_wire::v1::{AnswerReader, CompletionRequest};
use llm_engine_wire::worker::{
    CancelRequest, CancelResponse, REQUEST_ID_HEADER, TokenizeRequest, TokenizeResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::admit::Limits;
use crate::answer_error::refuse_errors;
use crate::arrival::REQUEST_TIMEOUT;
use crate::clients::{Clients, RequestError, UpstreamBody};
use crate::connect::Proxies;
use crate::health::Health;
use crate::load::Load;
use crate::remote::Remote;
use crate::supervise::{Worker, WorkerState};
use crate::{Dialect, Failure, RemoteSetup, RouteStatus, SetupError, Timeouts, TraceHeaders};

/// One model at one upstream with one credential.
#[derive(Debug)]
pub(crate) struct Deployment {
    /// Its place among those of its model.
    pub(crate) number: u32,
    /// Who it is, for the log.
    pub(crate) label: Name,
    /// Whether it is found out how much it can take, for which first tokens have to be seen.
    pub(crate) is_adaptive: bool,
    pub(crate) health: Arc<Health>,
    pub(crate) load: Arc<Load>,
    /// What it may be asked for.
    pub(crate) quotas: Option<Arc<Limits>>,
    /// The upstream's own name of the model.
    model: String,
    pub(crate) timeouts: Timeouts,
    /// The time of day, which some hints name.
    wall_clock: fn() -> Timestamp,
    upstream: UpstreamServer,
}

/// What a deployment is told of a request besides what it asks for.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) request_id: &'a str,
    /// How long its caller is still there.
    pub(crate) left: Option<Duration>,
    pub(crate) trace: Option<Box<TraceHeaders>>,
}

/// The length of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PromptSize {
    pub(crate) tokens: u64,
    /// How many tokens of answer fit behind it into the model's context.
    pub(crate) left: u64,
}

/// Who answers, and how it is reached.
enum UpstreamServer {
    /// A model worker that we started; its socket is another one after each start.
    Worker {
        worker: Worker,
        clients: Box<Clients<UnixConnector>>,
    },
    /// An OpenAI-compatible server.
    Remote(Box<Remote>),
}

/// How long a deployment may take to say whether it is well, or to count a prompt.
const SMALL_QUESTION: Duration = Duration::from_secs(2);
/// How long it may take to cancel: a worker answers between two steps, and a step that reads a prompt can be long.
const CANCEL: Duration = Duration::from_secs(30);
/// How long a worker may take until the first token; of it we know that it lives: several long prompts at once take minutes on a slow machine.
const FIRST_TOKEN_OF_WORKER: Duration = Duration::from_secs(600);
/// The longest answer to one of those.
const SMALL_ANSWER_BYTES: usize = 4 * 1024 * 1024;

impl Deployment {
    pub(crate) fn worker(
        model: &str,
        worker: Worker,
        is_adaptive: bool,
        wall_clock: fn() -> Timestamp,
    ) -> Self {
        let clients = Box::new(Clients::new(UnixConnector));
        Self {
            number: 0,
            label: "worker".into(),
            is_adaptive,
            health: Arc::default(),
            load: Arc::default(),
            quotas: None,
            model: model.to_owned(),
            timeouts: Timeouts {
                first_token: FIRST_TOKEN_OF_WORKER,
                ..Timeouts::default()
            },
            wall_clock,
            upstream: UpstreamServer::Worker { worker, clients },
        }
    }

    pub(crate) fn remote(
        (public_name, number): (&str, u32),
        setup: RemoteSetup,
        quotas: Option<Arc<Limits>>,
        proxies: &Arc<Proxies>,
        wall_clock: fn() -> Timestamp,
    ) -> Result<Self, SetupError> {
        let remote = Remote::new(public_name, &setup, proxies)?;
        Ok(Self {
            number,
            label: label(&setup.url),
            is_adaptive: setup.is_adaptive,
            health: Arc::default(),
            load: Arc::default(),
            quotas,
            model: setup.model,
            timeouts: setup.timeouts,
            wall_clock,
            upstream: UpstreamServer::Remote(Box::new(remote)),
        })
    }

    /// The upstream's own name of the model.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Host and port of its server; `None` of a worker.
    pub(crate) fn address(&self) -> Option<(String, u16)> {
        match &self.upstream {
            UpstreamServer::Worker { .. } => None,
            UpstreamServer::Remote(remote) => remote.address(),
        }
    }

    /// Whether a request can be sent now.
    pub(crate) fn is_up(&self) -> bool {
        match &self.upstream {
            UpstreamServer::Worker { worker, .. } => matches!(worker.state(), WorkerState::Ready(_)),
            // Only an attempt can tell.
            UpstreamServer::Remote(_) => true,
        }
    }

    /// Whether it would answer a request now.
    pub(crate) async fn status(&self) -> RouteStatus {
        let path = match &self.upstream {
            UpstreamServer::Worker { worker, .. } => match worker.state() {
                WorkerState::Ready(_) => "/health",
                WorkerState::Starting => return RouteStatus::Starting,
                WorkerState::Down => return RouteStatus::Down,
            },
            UpstreamServer::Remote(remote) => remote.health_path(),
        };
        match timeout(SMALL_QUESTION, self.send(Method::GET, path, None, Bytes::new())).await {
            Ok(Ok(response)) if response.status().is_success() => RouteStatus::Ready,
            _ => RouteStatus::Down,
        }
    }

    /// Whether it is a server, and not a worker of ours.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.upstream, UpstreamServer::Remote(_))
    }

    /// Whether it can cancel a request and say what it has used.
    pub(crate) fn can_cancel(&self) -> bool {
        matches!(self.upstream, UpstreamServer::Worker { .. })
    }

    /// Whether an answer comes as a stream, of which a whole one is put together: then tokens are counted as they come, and a
    /// caller that hangs up pays for what was generated. Only where that loses nothing.
    pub(crate) fn streams(&self, request: &Request) -> bool {
        // A worker answers with text alone.
        let loses_nothing = !self.is_remote() || request.can_be_streamed();
        let prefers_stream = loses_nothing && (self.is_adaptive || !self.is_remote());
        request.kind != Kind::Embedding && (request.stream || prefers_stream)
    }

    /// Until when it does not want to be asked.
    pub(crate) fn cooling_until(&self) -> Option<Instant> {
        match &self.upstream {
            UpstreamServer::Worker { .. } => None,
            UpstreamServer::Remote(remote) => remote.cooldown.until(),
        }
    }

    /// When a caller is told to come who comes while it does not want to be asked.
    pub(crate) fn cooling_ends(&self) -> Option<Duration> {
        match &self.upstream {
            UpstreamServer::Worker { .. } => None,
            UpstreamServer::Remote(remote) => remote.cooldown.remaining(),
        }
    }

    /// It is not asked again before its hint is over. A worker that says 429 is only full, which passes at any moment.
    fn cool_down(&self, failure: Failure) -> Failure {
        match (failure, &self.upstream) {
            (Failure::Limited { retry_after }, UpstreamServer::Remote(remote)) => Failure::Limited {
                retry_after: remote.cooldown.begin(retry_after),
            },
            (failure, _) => failure,
        }
    }

    /// Sends a request, and returns when the head of a good answer has come; and by what that is read, if it is in another dialect
    /// than OpenAI's.
    pub(crate) async fn generate(
        &self,
        request: &Request,
        max_output_tokens: u64,
        stream: bool,
        told: Told<'_>,
    ) -> Result<(Response<UpstreamBody>, Option<AnswerReader>), Failure> {
        let upstream = Upstream {
            model: &self.model,
            max_output_tokens: Some(max_output_tokens),
            stream,
            continuous_usage: matches!(self.upstream, UpstreamServer::Worker { .. }),
        };
        let (path, body, reader) = match (self.dialect(), &self.upstream, request.kind) {
            (Dialect::LlmEngine, ..) => {
                let request = self.in_v1(request, &upstream)?;
                let created = u64::try_from((self.wall_clock)().as_second()).unwrap_or(0);
                let reader = AnswerReader::new(&request, created);
                let body =
                    serde_json::to_string(&request).map_err(|error| Failure::Broken(error.to_string()))?;
                (CompletionRequest::path(stream), body, Some(reader))
            }
            (Dialect::OpenAi, UpstreamServer::Worker { .. }, kind) => {
                let path = match kind {
                    Kind::Chat => "/v1/chat/completions",
                    Kind::Completion => "/v1/completions",
                    Kind::Embedding => "/v1/embeddings",
                };
                (path, request.upstream_body(&upstream), None)
            }
            (Dialect::OpenAi, UpstreamServer::Remote(_), kind) => {
                (kind.path(), request.upstream_body(&upstream), None)
            }
        };
        let response = self.send(Method::POST, path, Some(told), body.into()).await?;
        // Not every server streams, and its caller did not ask for it.
        let has_to_stream = (reader.is_some() || request.stream == stream).then_some(stream);
        let answer = refuse_errors(response, (request.kind, has_to_stream), self.wall_clock).await;
        let answer = answer.map_err(|failure| self.cool_down(failure))?;
        Ok((answer, reader))
    }

    fn dialect(&self) -> Dialect {
        match &self.upstream {
            UpstreamServer::Worker { .. } => Dialect::OpenAi,
            UpstreamServer::Remote(remote) => remote.dialect,
        }
    }

    fn in_v1(&self, request: &Request, upstream: &Upstream<'_>) -> Result<CompletionRequest, Failure> {
        CompletionRequest::from_openai(request, upstream).map_err(|unsayable| Failure::Rejected {
            message: format!("the model is on a server of LLM Engine's v1 API, where {unsayable}"),
            code: Some("unsupported".to_owned()),
            param: Some(unsayable.field),
        })
    }

    /// Whether the request can be said in its dialect.
    pub(crate) fn refuse_unsayable(&self, request: &Request) -> Result<(), Failure> {
        match self.dialect() {
            Dialect::OpenAi => Ok(()),
            Dialect::LlmEngine => {
                let upstream = Upstream {
                    model: &self.model,
                    max_output_tokens: None,
                    stream: request.stream,
                    continuous_usage: false,
                };
                self.in_v1(request, &upstream).map(drop)
            }
        }
    }

    /// Whether it is known where it tells how many requests wait in it.
    pub(crate) fn tells_waiting(&self) -> bool {
        matches!(&self.upstream, UpstreamServer::Remote(remote) if remote.has_metrics())
    }

    /// How many requests wait in it, as vLLM counts them, if it tells.
    pub(crate) async fn waiting(&self) -> Option<usize> {
        let UpstreamServer::Remote(remote) = &self.upstream else {
            return None;
        };
        let text = async {
            let response = remote.ask_for_metrics().await?;
            let body = Limited::new(response.into_body(), SMALL_ANSWER_BYTES).collect();
            String::from_utf8(body.await.ok()?.to_bytes().to_vec()).ok()
        };
        waiting_requests(&timeout(SMALL_QUESTION, text).await.ok()??)
    }

    /// How long the prompt is, exactly; `None` if the deployment can't tell.
    pub(crate) async fn measure_prompt(&self, request: &Request) -> Option<PromptSize> {
        if matches!(self.upstream, UpstreamServer::Remote(_)) {
            return None;
        }
        let question = TokenizeRequest {
            model: self.model.clone(),
            prompt: request.field("prompt").or(request.field("input")).cloned(),
            messages: request.field("messages").cloned(),
        };
        let answer: TokenizeResponse = self.ask("/tokenize", &question, SMALL_QUESTION).await?;
        Some(PromptSize {
            tokens: answer.count,
            left: answer.max_model_len.saturating_sub(answer.count),
        })
    }

    /// Ends a request, and returns all that it has used; `None` if the deployment does not know it.
    pub(crate) async fn cancel(&self, request_id: &str) -> Option<Usage> {
        let question = CancelRequest {
            request_id: request_id.to_owned(),
        };
        let answer: CancelResponse = self.ask("/cancel", &question, CANCEL).await?;
        Some(answer.usage)
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
        patience: Duration,
    ) -> Option<A> {
        let body = serde_json::to_vec(question).ok()?.into();
        let answer = async {
            let response = self.send(Method::POST, path, None, body).await.ok()?;
            if !response.status().is_success() {
                return None;
            }
            let body = Limited::new(response.into_body(), SMALL_ANSWER_BYTES)
                .collect()
                .await
                .ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        timeout(patience, answer).await.ok().flatten()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        told: Option<Told<'_>>,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, Failure> {
        let mut request = HttpRequest::builder()
            .method(method)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream");
        if let Some(told) = told {
            request = request.header(REQUEST_ID_HEADER, told.request_id);
            if let Some(left) = told.left {
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                request = request.header(REQUEST_TIMEOUT, left);
            }
            if let Some((trace, headers)) = told.trace.zip(request.headers_mut()) {
                trace.add_to(headers);
            }
        }
        let answer = match &self.upstream {
            UpstreamServer::Worker { worker, clients } => {
                let WorkerState::Ready(socket) = worker.state() else {
                    return Err(Failure::Unreachable("its process is not running".to_owned()));
                };
                let uri: Uri = hyperlocal::Uri::new(socket, path).into();
                match request.uri(uri).body(Full::new(body)) {
                    Ok(request) => clients.request(request).await,
                    Err(error) => Err(error.into()),
                }
            }
            UpstreamServer::Remote(remote) => remote.send(request, path, body).await,
        };
        answer.map_err(|error| match error {
            RequestError::Connect(error) => Failure::Unreachable(error.to_string()),
            RequestError::Http(error) => Failure::Broken(error.to_string()),
            RequestError::Invalid(error) => Failure::Broken(error.to_string()),
        })
    }
}

/// The sum over all of a server's engines, in Prometheus's words.
fn waiting_requests(metrics: &str) -> Option<usize> {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("vllm:num_requests_waiting")?;
        // Other names begin alike.
        (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit(' ').next())?
    });
    let mut numbers = lines.filter_map(|number| number.parse::<f64>().ok()).peekable();
    numbers.peek()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let waiting = numbers.sum::<f64>() as usize;
    Some(waiting)
}

/// Host and port of a server, without what else its address may hold.
fn label(url: &str) -> Name {
    let uri: Option<Uri> = url.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    let authority = authority.map_or("", Authority::as_str);
    authority.rsplit('@').next().unwrap_or_default().into()
}

impl fmt::Debug for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker { worker, .. } => f.debug_tuple("Worker").field(worker).finish(),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}
