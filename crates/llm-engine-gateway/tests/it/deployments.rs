//! Several deployments of a model: what callers see of one that does not do what it should.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine_gateway::{
    AnswerBody, CompleteError, Failure, Gateway, Quota, RefusalCode, RemoteSetup, Setup, Timeouts, Unit,
};
use scripted_upstream::{Exchange, Upstream, freeze};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use crate::harness::{api_key, arrival, deployment, drain, policy, request, settle, setup, streaming};

const FIRST_TOKEN: Duration = Duration::from_secs(2);
/// How long an answer takes that is as it should be.
const USUAL: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(10);

/// What a deployment does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well,
    /// So many times slower.
    Slow(u32),
    Hung,
    Status(u16),
    /// 429, and to come again in two seconds.
    Full,
    Garbage,
    /// A stream that breaks off after its first token.
    Half,
}

struct Node {
    url: String,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

impl Node {
    async fn start() -> Self {
        let mut node = Self {
            url: String::new(),
            mode: Arc::new(Mutex::new(Mode::Well)),
            asked: Arc::default(),
            server: None,
        };
        node.listen(Upstream::start().await);
        node
    }

    fn listen(&mut self, mut upstream: Upstream) {
        upstream.url().clone_into(&mut self.url);
        let (mode, asked) = (Arc::clone(&self.mode), Arc::clone(&self.asked));
        self.server = Some(tokio::spawn(async move {
            loop {
                let exchange = upstream.next().await;
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(*mode.lock().unwrap(), exchange));
            }
        }));
    }

    /// Nobody listens at its port any more, and what it was working on is lost.
    async fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    async fn start_again(&mut self) {
        let address = self.url["http://".len()..].trim_end_matches("/v1").to_owned();
        self.listen(Upstream::start_at(&address).await);
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn answer(mode: Mode, exchange: Exchange) {
    match mode {
        Mode::Well => {
            sleep(USUAL).await;
            exchange.answer_as_asked(3, &["a", "b"]);
        }
        Mode::Slow(times) => {
            sleep(times * USUAL).await;
            exchange.answer_as_asked(3, &["a", "b"]);
        }
        Mode::Hung => {
            sleep(Duration::from_secs(3600)).await;
            drop(exchange);
        }
        Mode::Status(status) => exchange.answer(status, &[], json!({ "error": { "message": "no" } })),
        Mode::Full => exchange.answer(429, &[("retry-after", "2")], json!({})),
        Mode::Garbage => exchange.answer(200, &[], json!(["what"])),
        Mode::Half => {
            let stream = exchange.stream();
            stream.text("a");
            sleep(USUAL).await;
            stream.cut();
        }
    }
}

fn remote_at(url: &str) -> RemoteSetup {
    let llm_engine_gateway::DeploymentSetup::Remote(remote) = deployment(url) else {
        panic!("it is remote")
    };
    RemoteSetup {
        timeouts: Timeouts {
            first_token: FIRST_TOKEN,
            total: Some(FIRST_TOKEN),
            ..Timeouts::default()
        },
        ..remote
    }
}

/// The model `m` with three deployments and no limits.
async fn three(change: impl FnOnce(&mut Setup)) -> (Arc<Gateway>, Vec<Node>) {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start().await);
    }
    let mut setup = setup("");
    let remotes = nodes.iter().map(|node| remote_at(&node.url));
    setup.models[0].deployments = remotes.map(llm_engine_gateway::DeploymentSetup::Remote).collect();
    setup.models[0].concurrency = None;
    setup.policies.clear();
    change(&mut setup);
    (Arc::new(Gateway::start(setup).unwrap()), nodes)
}

/// What became of a request, and after how long it had its first token or error.
#[derive(Debug)]
struct Outcome {
    first: Duration,
    error: Option<CompleteError>,
    broke_off: bool,
}

async fn call(gateway: Arc<Gateway>, number: usize) -> Outcome {
    let begun = Instant::now();
    let caller = gateway.authenticate(&api_key("alice")).unwrap();
    let route = gateway.resolve("m").unwrap();
    let request = if number.is_multiple_of(2) {
        streaming()
    } else {
        request(json!({}))
    };
    let name = format!("r-{number}");
    let answer = gateway.complete(&caller, route, &request, &arrival(&name)).await;
    let first = begun.elapsed();
    let (error, broke_off) = match answer {
        Ok(AnswerBody::Stream(stream)) => (None, drain(*stream).await.is_err()),
        Ok(AnswerBody::Whole(_)) => (None, false),
        Err(error) => (Some(error), false),
    };
    Outcome {
        first,
        error,
        broke_off,
    }
}

/// A request every 20 ms, for so long.
async fn calls(gateway: &Arc<Gateway>, lasts: Duration) -> Vec<Outcome> {
    let mut calls = Vec::new();
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        calls.push(tokio::spawn(call(Arc::clone(gateway), calls.len())));
        pass(2 * STEP).await;
    }
    while !calls.iter().all(JoinHandle::is_finished) {
        pass(STEP).await;
    }
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

async fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        advance(STEP).await;
        settle().await;
    }
}

fn p99(outcomes: &[Outcome]) -> Duration {
    let mut firsts: Vec<Duration> = outcomes.iter().map(|outcome| outcome.first).collect();
    firsts.sort();
    firsts[firsts.len() * 99 / 100]
}

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// Nothing but streams that have begun fails, and nobody waits for longer than one deployment may take.
async fn assert_callers_see_nothing_of(mode: Mode) {
    let (gateway, nodes) = three(|_| {}).await;
    calls(&gateway, Duration::from_secs(2)).await;
    nodes[0].set(mode);
    let outcomes = calls(&gateway, TEN_SECONDS).await;
    for outcome in &outcomes {
        assert!(outcome.error.is_none(), "{mode:?}: {outcome:?}");
    }
    if mode != Mode::Half {
        assert!(outcomes.iter().all(|outcome| !outcome.broke_off), "{mode:?}");
    }
    let longest = p99(&outcomes);
    assert!(longest <= USUAL + FIRST_TOKEN + 2 * STEP, "{mode:?}: {longest:?}");
    // It is used again soon when it is well again.
    nodes[0].set(Mode::Well);
    pass(TEN_SECONDS - Duration::from_secs(2)).await;
    let before = nodes[0].asked();
    let outcomes = calls(&gateway, Duration::from_secs(2)).await;
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none()), "{mode:?}");
    let asked = nodes[0].asked() - before;
    assert!(asked >= 20, "{mode:?}: {asked} of {}", outcomes.len());
}

#[tokio::test]
async fn of_one_that_hangs_callers_see_only_a_wait() {
    let _frozen = freeze();
    assert_callers_see_nothing_of(Mode::Hung).await;
}

#[tokio::test]
async fn of_one_that_is_slow_callers_see_only_a_wait() {
    let _frozen = freeze();
    assert_callers_see_nothing_of(Mode::Slow(20)).await;
}

#[tokio::test]
async fn of_one_that_answers_500_or_429_or_garbage_callers_see_nothing() {
    let _frozen = freeze();
    for mode in [Mode::Status(500), Mode::Full, Mode::Garbage, Mode::Status(401)] {
        assert_callers_see_nothing_of(mode).await;
    }
}

#[tokio::test]
async fn streams_that_break_off_are_told_and_no_more_begin_there() {
    let _frozen = freeze();
    assert_callers_see_nothing_of(Mode::Half).await;
}

#[tokio::test]
async fn of_one_that_is_killed_callers_see_nothing_and_it_is_used_again_soon_after_it_is_back() {
    let _frozen = freeze();
    let (gateway, mut nodes) = three(|_| {}).await;
    calls(&gateway, Duration::from_secs(2)).await;
    nodes[0].kill().await;
    let outcomes = calls(&gateway, TEN_SECONDS).await;
    for outcome in &outcomes {
        assert!(outcome.error.is_none(), "{outcome:?}");
    }
    assert!(p99(&outcomes) <= USUAL + FIRST_TOKEN);
    nodes[0].start_again().await;
    pass(TEN_SECONDS - Duration::from_secs(2)).await;
    let before = nodes[0].asked();
    calls(&gateway, Duration::from_secs(2)).await;
    assert!(nodes[0].asked() - before >= 20, "{}", nodes[0].asked() - before);
}

#[tokio::test]
async fn one_that_says_when_to_come_back_is_not_asked_before_and_the_others_are_at_once() {
    let _frozen = freeze();
    let (gateway, nodes) = three(|_| {}).await;
    calls(&gateway, Duration::from_secs(1)).await;
    nodes[0].set(Mode::Full);
    let full = nodes[0].asked();
    while nodes[0].asked() == full {
        call_now(&gateway).await;
    }
    let until = Instant::now() + Duration::from_secs(2);
    let said = nodes[0].asked();
    while Instant::now() + 4 * STEP < until {
        let outcome = call_now(&gateway).await;
        assert!(outcome.error.is_none());
        assert!(outcome.first <= USUAL + 2 * STEP, "{outcome:?}");
        if Instant::now() < until {
            assert_eq!(nodes[0].asked(), said);
        }
    }
    // All have: everybody is told a time of its own.
    nodes.iter().for_each(|node| node.set(Mode::Full));
    let mut told = Vec::new();
    for _ in 0..30 {
        let outcome = call_now(&gateway).await;
        let Some(CompleteError::Failed(Failure::Limited { retry_after })) = outcome.error else {
            panic!("{outcome:?}")
        };
        told.push(Instant::now() + retry_after);
    }
    told.sort();
    told.dedup();
    assert!(told.len() >= 28, "{}", told.len());
}

async fn call_now(gateway: &Arc<Gateway>) -> Outcome {
    let call = tokio::spawn(call(Arc::clone(gateway), 0));
    while !call.is_finished() {
        pass(STEP).await;
    }
    call.await.unwrap()
}

#[tokio::test]
async fn in_a_total_outage_hardly_more_is_sent_than_is_asked_for() {
    let _frozen = freeze();
    for mode in [Mode::Status(500), Mode::Hung] {
        let (gateway, nodes) = three(|_| {}).await;
        calls(&gateway, Duration::from_secs(5)).await;
        nodes.iter().for_each(|node| node.set(mode));
        let before: usize = nodes.iter().map(Node::asked).sum();
        let outcomes = calls(&gateway, TEN_SECONDS).await;
        let asked: usize = nodes.iter().map(Node::asked).sum();
        assert!(outcomes.iter().all(|outcome| outcome.error.is_some()));
        let sent = asked - before;
        assert!(
            sent * 10 <= outcomes.len() * 12,
            "{mode:?}: {sent} for {}",
            outcomes.len()
        );
    }
}

#[tokio::test]
async fn a_request_that_all_of_them_answer_badly_ejects_none_and_neither_do_callers_who_do_not_wait() {
    let _frozen = freeze();
    let (gateway, nodes) = three(|_| {}).await;
    nodes.iter().for_each(|node| node.set(Mode::Status(500)));
    for _ in 0..4 {
        assert!(call_now(&gateway).await.error.is_some());
    }
    nodes.iter().for_each(|node| node.set(Mode::Slow(5)));
    let caller = gateway.authenticate(&api_key("alice")).unwrap();
    let route = gateway.resolve("m").unwrap();
    let request = streaming();
    for number in 0..10 {
        let name = format!("hasty-{number}");
        let mut arrival = arrival(&name);
        arrival.deadline = Some(Instant::now() + USUAL);
        let answer = gateway.complete(&caller, route, &request, &arrival);
        let (answer, ()) = tokio::join!(answer, pass(2 * USUAL));
        assert!(matches!(answer, Err(CompleteError::Failed(Failure::TimedOut(_)))));
    }
    nodes.iter().for_each(|node| node.set(Mode::Well));
    let before: Vec<usize> = nodes.iter().map(Node::asked).collect();
    calls(&gateway, Duration::from_secs(1)).await;
    for (node, before) in nodes.iter().zip(before) {
        assert!(node.asked() > before, "none is ejected");
    }
}

#[tokio::test]
async fn each_has_quotas_of_its_own_and_who_finds_them_all_used_up_is_told_when() {
    let _frozen = freeze();
    let (gateway, nodes) = three(|setup| {
        for (deployment, limit) in setup.models[0].deployments.iter_mut().zip([1, 2, 3]) {
            let llm_engine_gateway::DeploymentSetup::Remote(remote) = deployment else {
                panic!("it is remote")
            };
            let quota = Quota::new(limit, Duration::from_secs(60)).unwrap();
            let name = format!("m.deployment-{limit}");
            remote.limits = Some(policy(&name, [(Unit::Requests, quota)]));
        }
    })
    .await;
    let outcomes = calls(&gateway, 20 * STEP).await;
    let asked: Vec<usize> = nodes.iter().map(Node::asked).collect();
    assert_eq!(asked, [1, 2, 3]);
    for outcome in &outcomes[6..] {
        let Some(CompleteError::Refused(refusal)) = &outcome.error else {
            panic!("{outcome:?}")
        };
        assert_eq!(refusal.code, RefusalCode::RateLimited);
        // The one with three a minute is free again first.
        let wait = refusal.retry_after.unwrap();
        assert!(wait <= Duration::from_secs(20), "{wait:?}");
    }
}
