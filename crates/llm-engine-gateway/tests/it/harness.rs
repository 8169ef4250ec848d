use std::fmt::Debug;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_gateway::{
    AnswerBody, AnswerStream, ApiKeyDigest, Arrival, Caller, CallerSetup, CompleteError, Counted,
    DeploymentSetup, Dialect, Event, Failure, Gateway, Level, ModelSetup, Per, PolicySetup, PriceSetup,
    ProxySetup, Quota, ROUTES, Refusal, RemoteSetup, Route, Setup, Timeouts, Unit,
};
use llm_engine_wire::openai::{ChunkChoice, Kind, Request};
use scripted_upstream::{EventStream, Exchange, Upstream};
use serde_json::{Value, json};
use tokio::time::Instant;

/// A gateway with an upstream that the test scripts.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
}

/// What the caller has used up, and how many of its requests count as running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    pub(crate) requests: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) running: u64,
}

/// Nothing is running and this is what was charged.
pub(crate) const fn spent(requests: u64, input_tokens: u64, output_tokens: u64) -> Spent {
    Spent {
        requests,
        input_tokens,
        output_tokens,
        running: 0,
    }
}

/// So long that no test sees a whole unit refill.
const WINDOW: Duration = Duration::from_secs(1_000_000);
pub(crate) const LIMIT: u64 = 1000;
const CONCURRENCY: u32 = 5;

impl World {
    /// The model `m` with one place and no queue, under a policy that counts everything.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`Self::start`], with this credential for the deployment.
    pub(crate) async fn with_credential(api_key: &str) -> Self {
        Self::with(|setup| {
            remote(setup).api_key = Some(api_key.to_owned());
        })
        .await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let upstream = Upstream::start().await;
        let mut setup = setup(upstream.url());
        change(&mut setup);
        Self {
            gateway: Gateway::start(setup).unwrap(),
            upstream,
        }
    }

    pub(crate) fn caller(&self, name: &str) -> Caller {
        self.gateway.authenticate(&api_key(name)).unwrap()
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        Arc::clone(self.gateway.resolve("m").unwrap())
    }

    /// Alice's request.
    pub(crate) async fn complete(&self, request: &Request) -> Result<AnswerBody, CompleteError> {
        self.complete_as("alice", request).await
    }

    pub(crate) async fn complete_as(
        &self,
        name: &str,
        request: &Request,
    ) -> Result<AnswerBody, CompleteError> {
        complete_as(&self.gateway, name, request, "r-1").await
    }

    /// How the caller's quotas for the model `m` stand.
    pub(crate) fn levels(&self, name: &str) -> Vec<Level> {
        self.gateway
            .levels(&self.caller(name), &self.route(), &arrival("r-1"))
    }

    /// What Alice has used up of the policy that counts everything.
    pub(crate) fn spent(&self) -> Spent {
        let mut spent = Spent::default();
        for level in self.levels("alice") {
            let used = level.limit - level.remaining;
            match level.counted {
                Counted::PerWindow {
                    unit: Unit::Requests, ..
                } => spent.requests = used,
                Counted::PerWindow {
                    unit: Unit::InputTokens,
                    ..
                } => spent.input_tokens = used,
                Counted::PerWindow {
                    unit: Unit::OutputTokens,
                    ..
                } => spent.output_tokens = used,
                Counted::PerWindow { .. } | Counted::PerPeriod { .. } => {}
                Counted::Concurrency => spent.running = used,
            }
        }
        spent
    }

    /// Begins a stream: the answer has its first event, an `a`, and the script goes on.
    pub(crate) async fn begin(&mut self) -> (AnswerStream, EventStream) {
        self.begin_with(&streaming(), |stream| stream.text("a")).await
    }

    pub(crate) async fn begin_with(
        &mut self,
        request: &Request,
        script: impl FnOnce(&EventStream),
    ) -> (AnswerStream, EventStream) {
        let mut answer = pin!(complete(&self.gateway, request));
        let stream = arrived(answer.as_mut(), &mut self.upstream).await.stream();
        script(&stream);
        (stream_of(answer.await), stream)
    }

    /// Sends a streaming request and answers it by this script; returns why there is no answer.
    pub(crate) async fn failure(&mut self, script: impl FnOnce(Exchange)) -> Failure {
        self.failure_of(&streaming(), script).await
    }

    pub(crate) async fn failure_of(&mut self, request: &Request, script: impl FnOnce(Exchange)) -> Failure {
        let mut answer = pin!(complete(&self.gateway, request));
        script(arrived(answer.as_mut(), &mut self.upstream).await);
        failed(answer.await)
    }

    /// Has so many streams answered, one after the other, each after this time. Needs a frozen clock.
    pub(crate) async fn answer_after(&mut self, time: Duration, times: usize) {
        let request = streaming();
        for _ in 0..times {
            let mut answer = pin!(complete(&self.gateway, &request));
            let exchange = arrived(answer.as_mut(), &mut self.upstream).await;
            tokio::time::advance(time).await;
            exchange.answer_words(3, &["a"]);
            drain(stream_of(answer.await)).await.unwrap();
        }
    }

    /// Sends a request that arrives upstream, and drops it there.
    pub(crate) async fn abandon(&mut self, request: &Request) -> Exchange {
        let answer = pin!(complete(&self.gateway, request));
        arrived(answer, &mut self.upstream).await
    }

    /// The one place is free: another request runs.
    pub(crate) async fn assert_place_is_free(&mut self) {
        assert_eq!(self.route().running(), 0);
        let request = streaming();
        let mut answer = pin!(complete(&self.gateway, &request));
        let exchange = arrived(answer.as_mut(), &mut self.upstream).await;
        exchange.answer_words(1, &["a"]);
        assert_eq!(text(&drain(stream_of(answer.await)).await.unwrap()), "a");
    }
}

/// What is known of a request besides what it asks for: nothing but its name.
pub(crate) fn arrival(request_id: &str) -> Arrival<'_> {
    Arrival::local(request_id, ROUTES[0])
}

/// The time of day, on the clock that tests can freeze.
fn wall_clock() -> Timestamp {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    "2026-11-24T12:00:00Z".parse::<Timestamp>().unwrap() + START.elapsed()
}

/// Alice's request.
pub(crate) async fn complete(gateway: &Gateway, request: &Request) -> Result<AnswerBody, CompleteError> {
    complete_as(gateway, "alice", request, "r-1").await
}

pub(crate) async fn complete_as(
    gateway: &Gateway,
    name: &str,
    request: &Request,
    request_id: &str,
) -> Result<AnswerBody, CompleteError> {
    let caller = gateway.authenticate(&api_key(name)).unwrap();
    let route = gateway.resolve(&request.model).unwrap();
    gateway
        .complete(&caller, route, request, &arrival(request_id))
        .await
}

/// A gateway's set-up: the model `m`, and Alice and Bob of one team and Carol of another.
pub(crate) fn setup(url: &str) -> Setup {
    Setup {
        models: vec![model("m", url)],
        callers: vec![
            caller("alice", "red"),
            caller("bob", "red"),
            caller("carol", "blue"),
        ],
        policies: vec![counting_everything()],
        socket_folder: std::env::temp_dir(),
        journal: None,
        proxies: ProxySetup::default(),
        telemetry: None,
        wall_clock,
    }
}

pub(crate) fn model(name: &str, url: &str) -> ModelSetup {
    ModelSetup {
        name: name.to_owned(),
        aliases: Vec::new(),
        deployments: vec![deployment(url)],
        fallbacks: Vec::new(),
        chat_template_for_prompts: false,
        default_output_tokens: 20,
        price: PriceSetup::default(),
        concurrency: Some(NonZeroU32::MIN),
        queue_wait: Duration::from_secs(2),
        queue_length: 0,
    }
}

/// A deployment that is left to limit itself.
pub(crate) fn deployment(url: &str) -> DeploymentSetup {
    DeploymentSetup::Remote(RemoteSetup {
        url: url.to_owned(),
        model: "up".to_owned(),
        dialect: Dialect::OpenAi,
        metrics_url: None,
        api_key: None,
        is_adaptive: false,
        limits: None,
        timeouts: Timeouts::default(),
        certificate_authorities: Vec::new(),
    })
}

/// The one deployment of the set-up's first model.
pub(crate) fn remote(setup: &mut Setup) -> &mut RemoteSetup {
    match &mut setup.models[0].deployments[0] {
        DeploymentSetup::Remote(remote) => remote,
        DeploymentSetup::Worker(worker) => panic!("{worker:?}"),
    }
}

pub(crate) fn api_key(name: &str) -> String {
    format!("key of {name}")
}

fn caller(name: &str, team: &str) -> CallerSetup {
    CallerSetup {
        name: name.to_owned(),
        team: Some(team.to_owned()),
        api_key: ApiKeyDigest::of(&api_key(name)),
        names_users: false,
        is_operator: false,
    }
}

/// The policy from which [`World::spent`] is read.
pub(crate) fn counting_everything() -> PolicySetup {
    let units = [Unit::Requests, Unit::InputTokens, Unit::OutputTokens];
    PolicySetup {
        per: Per {
            caller: true,
            ..Per::default()
        },
        concurrency: NonZeroU32::new(CONCURRENCY),
        ..policy(
            "all",
            units.map(|unit| (unit, Quota::new(LIMIT, WINDOW).unwrap())),
        )
    }
}

/// A policy with these quotas for everybody together.
pub(crate) fn policy(name: &str, quotas: impl IntoIterator<Item = (Unit, Quota)>) -> PolicySetup {
    PolicySetup {
        name: name.into(),
        quotas: quotas.into_iter().collect(),
        ..PolicySetup::default()
    }
}

/// So many of the unit each minute, all at once if need be.
pub(crate) fn per_minute(unit: Unit, limit: u64) -> (Unit, Quota) {
    (unit, Quota::new(limit, Duration::from_secs(60)).unwrap())
}

/// A request with a prompt that is priced as 3 tokens, for at most 20.
pub(crate) fn request(more: Value) -> Request {
    let mut fields = json!({ "model": "m", "prompt": "123456789", "max_tokens": 20 });
    let Value::Object(more) = more else {
        panic!("fields")
    };
    fields.as_object_mut().unwrap().extend(more);
    Request::from_fields(Kind::Completion, fields.as_object().unwrap().clone()).unwrap()
}

pub(crate) fn streaming() -> Request {
    request(json!({ "stream": true }))
}

// === answers ===

pub(crate) fn stream_of(answer: Result<AnswerBody, CompleteError>) -> AnswerStream {
    match answer {
        Ok(AnswerBody::Stream(stream)) => *stream,
        other => panic!("no stream: {other:?}"),
    }
}

pub(crate) fn failed(answer: Result<AnswerBody, CompleteError>) -> Failure {
    match answer {
        Err(CompleteError::Failed(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

pub(crate) fn refused(answer: Result<AnswerBody, CompleteError>) -> Refusal {
    match answer {
        Err(CompleteError::Refused(refusal)) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

/// Why the deployment failed, in words.
pub(crate) fn broken(failure: Failure) -> String {
    match failure {
        Failure::Broken(words) => words,
        other => panic!("failed otherwise: {other:?}"),
    }
}

/// The rest of the stream; asserts that nothing follows its end.
pub(crate) async fn drain(mut answer: AnswerStream) -> Result<Vec<Event>, (Vec<Event>, Failure)> {
    let mut events = Vec::new();
    let failure = loop {
        match answer.next().await {
            Some(Ok(event)) => events.push(event),
            Some(Err(failure)) => break Some(failure),
            None => break None,
        }
    };
    assert!(answer.next().await.is_none(), "nothing follows the end");
    match failure {
        Some(failure) => Err((events, failure)),
        None => Ok(events),
    }
}

pub(crate) fn text(events: &[Event]) -> String {
    let choices = events.iter().flat_map(|event| &event.chunk.choices);
    choices.map(ChunkChoice::added_text).collect()
}

/// The next event's text.
pub(crate) async fn next_text(answer: &mut AnswerStream) -> String {
    text(&[answer.next().await.unwrap().unwrap()])
}

/// Polls once: there must be something to wait for.
pub(crate) async fn assert_waits<F: Future<Output: Debug> + ?Sized>(mut future: Pin<&mut F>) {
    poll_fn(|waker| match future.as_mut().poll(waker) {
        Poll::Pending => Poll::Ready(()),
        Poll::Ready(output) => panic!("it does not wait: {output:?}"),
    })
    .await;
}

/// Lets the request arrive upstream, which does not answer it yet.
pub(crate) async fn arrived<F: Future<Output: Debug> + ?Sized>(
    answer: Pin<&mut F>,
    upstream: &mut Upstream,
) -> Exchange {
    tokio::select! {
        answer = answer => panic!("nothing was answered, and yet there is {answer:?}"),
        exchange = upstream.next() => exchange,
    }
}

/// Lets everything happen that needs no time: what was sent arrives.
pub(crate) async fn settle() {
    // Each turn looks at the sockets; the way from one end to the other is a few turns.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What the future comes to without any time; `None` if it goes on waiting.
pub(crate) async fn at_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    for _ in 0..50 {
        tokio::select! {
            biased;
            output = future.as_mut() => return Some(output),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

/// The chunk of a completion with the usage so far.
pub(crate) fn counted(text: &str, prompt_tokens: u64, completion_tokens: u64) -> Value {
    json!({
        "id": "c", "created": 1, "model": "up", "choices": [{ "index": 0, "text": text, "finish_reason": null }],
        "usage": {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    })
}
