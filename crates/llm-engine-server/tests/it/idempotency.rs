//! Requests that come again with the same `Idempotency-Key`: they attach to what is running and get what is stored.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Exchange, Upstream, freeze, stay_frozen};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::advance;

use crate::harness::{Answer, Log, STREAM, SYNC, Server, chat, metric, piece, prompt, quick};

pub(crate) const REPLAYED: &str = "x-llm-engine-replayed";
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
/// Enough to see what is charged: of each of these the headers tell what is left.
pub(crate) const POLICY: &str = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 100, window = '30d' }\noutput_tokens = { limit = 1000, window = '30d' }";

/// A server whose upstream waits for the test.
pub(crate) async fn start(more: &str) -> (Arc<Server>, Upstream) {
    let upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), more).await;
    (Arc::new(server), upstream)
}

/// One request of caller `k`.
#[derive(Clone)]
pub(crate) struct Keyed {
    pub(crate) server: Arc<Server>,
    pub(crate) target: &'static str,
    pub(crate) body: Value,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

impl Keyed {
    pub(crate) fn new(server: &Arc<Server>, target: &'static str, body: Value) -> Self {
        Self {
            server: Arc::clone(server),
            target,
            body,
            headers: vec![("idempotency-key", "key")],
        }
    }

    pub(crate) fn stream(server: &Arc<Server>) -> Self {
        Self::new(server, STREAM, prompt(60))
    }

    pub(crate) fn sync(server: &Arc<Server>) -> Self {
        Self::new(server, SYNC, prompt(60))
    }

    pub(crate) fn keep(mut self, seconds: &'static str) -> Self {
        self.headers.push(("x-llm-engine-keep-seconds", seconds));
        self
    }

    pub(crate) async fn answer(&self) -> Answer {
        self.server
            .post_with(&self.headers, self.target, &self.body)
            .await
    }

    /// Sends it and lets it arrive.
    pub(crate) async fn sent(&self) -> JoinHandle<Answer> {
        let request = self.clone();
        let answer = tokio::spawn(async move { request.answer().await });
        self.server.settle().await;
        answer
    }

    /// Sends it and lets it arrive at the upstream.
    pub(crate) async fn begun(&self, upstream: &mut Upstream) -> (JoinHandle<Answer>, Exchange) {
        let answer = self.sent().await;
        (answer, upstream.next().await)
    }
}

/// Hangs up.
pub(crate) async fn hang_up(server: &Server, answer: JoinHandle<Answer>) {
    answer.abort();
    assert!(answer.await.unwrap_err().is_cancelled());
    server.settle().await;
}

/// Every route that generates, in every form.
fn all_forms() -> Vec<(&'static str, Value)> {
    let mut chat_stream = chat();
    chat_stream["stream"] = true.into();
    let text = json!({ "model": "m", "prompt": "p", "max_tokens": 60 });
    let mut text_stream = text.clone();
    text_stream["stream"] = true.into();
    vec![
        (SYNC, prompt(60)),
        (STREAM, prompt(60)),
        (CHAT, chat()),
        (CHAT, chat_stream),
        (COMPLETIONS, text),
        (COMPLETIONS, text_stream),
    ]
}

/// Answers as was asked: two words, in two pieces, or whole.
async fn answer_ab(server: &Server, exchange: Exchange) {
    if exchange.body["stream"] != true {
        let choice =
            json!({ "index": 0, "text": "ab", "message": { "content": "ab" }, "finish_reason": "stop" });
        let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
        exchange.answer(
            200,
            &[],
            json!({ "id": "up-1", "choices": [choice], "usage": usage }),
        );
        return;
    }
    let stream = exchange.stream();
    stream.text("a");
    server.settle().await;
    stream.text("b");
    stream.finish("stop");
    stream.usage(3, 2);
    stream.done();
}

fn assert_same(own: &Answer, other: &Answer, replayed: &str) {
    assert_eq!((own.status, other.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(own.body, other.body);
    assert_eq!(own.request_id(), other.request_id());
    assert_eq!(
        (own.header(REPLAYED), other.header(REPLAYED)),
        (None, Some(replayed))
    );
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(own.header(name), other.header(name), "{name}");
    }
    let limits = |answer: &Answer| {
        let names = answer.headers.keys();
        names.filter(|name| name.as_str().contains("ratelimit")).count()
    };
    assert!(limits(own) > 0);
    assert_eq!(limits(other), 0, "those of the first are not current");
}

#[tokio::test]
async fn on_every_route_a_repeated_request_is_generated_once_and_hears_the_same_while_it_runs_and_after() {
    let _frozen = freeze();
    for (target, body) in all_forms() {
        let (server, mut upstream) = start(POLICY).await;
        let request = Keyed::new(&server, target, body);
        let (first, exchange) = request.begun(&mut upstream).await;
        let second = request.sent().await;
        answer_ab(&server, exchange).await;
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_same(&first, &second, "attached");
        assert!(
            first.body.contains('a') && first.body.contains('b'),
            "{}",
            first.body
        );
        for _ in 0..3 {
            assert_same(&first, &request.answer().await, "true");
        }
        assert!(upstream.arrived().is_none(), "{target}");
        assert_eq!(metric(&server, ATTACHED).await.as_deref(), Some("1"));
        assert_eq!(metric(&server, REPLAYS).await.as_deref(), Some("3"));
    }
}

const ATTACHED: &str = "llm_engine_repeated_requests_total{outcome=\"attached\"}";
const REPLAYS: &str = "llm_engine_repeated_requests_total{outcome=\"replayed\"}";

#[tokio::test]
async fn who_attaches_to_a_stream_hears_what_was_said_and_then_what_is() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let post = async || {
        let headers = [
            ("authorization", "Bearer k"),
            ("content-type", "application/json"),
            ("idempotency-key", "key"),
        ];
        server
            .send("POST", STREAM, &headers, Some(&prompt(60).to_string()))
            .await
    };
    let (mut first, stream) = tokio::join!(post(), async {
        let stream = upstream.next().await.stream();
        stream.text("a");
        stream
    });
    assert!(piece(&mut first).await.contains("\"text\":\"a\""));
    let mut second = post().await;
    assert!(piece(&mut second).await.contains("\"text\":\"a\""));
    stream.text("b");
    let mut third = post().await;
    for response in [&mut first, &mut second] {
        assert!(piece(response).await.contains("\"text\":\"b\""));
    }
    let mut heard = piece(&mut third).await;
    while !heard.contains("\"text\":\"b\"") {
        heard.push_str(&piece(&mut third).await);
    }
    assert!(heard.contains("\"text\":\"a\""));
    drop(first);
    server.settle().await;
    stream.text("c");
    for response in [&mut second, &mut third] {
        assert!(piece(response).await.contains("\"text\":\"c\""));
    }
}

#[tokio::test(start_paused = true)]
async fn who_attaches_to_a_held_request_takes_no_turn_of_its_own() {
    let _frozen = stay_frozen();
    let policy =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1s' }\nhold = '30s'";
    let (server, mut upstream) = start(policy).await;
    let mut use_up = Keyed::sync(&server);
    use_up.headers.clear();
    let (used, exchange) = use_up.begun(&mut upstream).await;
    exchange.answer_words(3, &["a"]);
    used.await.unwrap();

    let request = Keyed::sync(&server);
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(request.sent().await);
    }
    assert!(upstream.arrived().is_none());
    advance(Duration::from_secs(1)).await;
    upstream.next().await.answer_words(3, &["a"]);
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    advance(Duration::from_secs(1)).await;
    server.settle().await;
    assert!(upstream.arrived().is_none());
    // Nothing was booked for the others.
    let (next, exchange) = use_up.begun(&mut upstream).await;
    exchange.answer_words(3, &["a"]);
    assert_eq!(next.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn of_requests_that_come_at_once_one_generates() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let request = Keyed::stream(&server);
    let answers = async { futures_util::future::join_all((0..20).map(|_| request.answer())).await };
    let (answers, ()) = tokio::join!(answers, async {
        let exchange = upstream.next().await;
        server.settle().await;
        assert!(upstream.arrived().is_none());
        exchange.answer_words(3, &["a", "b"]);
    });
    let own = answers.iter().filter(|answer| answer.header(REPLAYED).is_none());
    assert_eq!(own.count(), 1);
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
}

#[tokio::test]
async fn a_repeated_request_is_charged_and_reported_once_and_can_be_explained() {
    let _frozen = freeze();
    let log = Log::default();
    let _logging = log.begin();
    let server = Arc::new(Server::start(&quick().await, POLICY).await);
    let request = Keyed::sync(&server);
    let first = request.answer().await;
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("99"));
    for _ in 0..5 {
        let replayed = request.answer().await;
        let explained = server
            .get(&format!("/v1/limits/explain/{}", replayed.request_id()))
            .await
            .json();
        assert_eq!(explained["charged"]["output_tokens"], 2);
    }
    let mut other = Keyed::sync(&server);
    other.headers.clear();
    let next = other.answer().await;
    assert_eq!(next.header("x-ratelimit-remaining-requests"), Some("98"));
    assert_eq!(next.header("x-ratelimit-remaining-tokens"), Some("996"));
    let lines = log.lines();
    let about_it = |line: &&String| line.contains(first.request_id());
    let records = lines.iter().filter(about_it).filter(|line| line.contains("INFO"));
    assert_eq!(records.count(), 1);
    let repeats = lines
        .iter()
        .filter(about_it)
        .filter(|line| line.contains("DEBUG"));
    assert_eq!(repeats.count(), 5);
}

#[tokio::test]
async fn a_key_that_belongs_to_another_request_is_refused_in_the_words_of_the_route() {
    let _frozen = freeze();
    for (target, body) in [(SYNC, prompt(60)), (CHAT, chat())] {
        let (server, mut upstream) = start("").await;
        let request = Keyed::new(&server, target, body);
        let mut other_body = request.clone();
        other_body.body["temperature"] = 0.5.into();
        let mut other_query = request.clone();
        other_query.target = if target == SYNC {
            "/v1/llm/completions-sync?model_endpoint_name=m&x=1"
        } else {
            "/v1/chat/completions?x=1"
        };
        let (first, exchange) = request.begun(&mut upstream).await;
        for other in [&other_body, &other_query] {
            let refused = other.answer().await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(refused.header("x-should-retry"), Some("false"));
            let body = refused.json();
            assert_eq!(body["error"]["code"], "idempotency_key_reused");
            assert_eq!(body["error"]["request_id"], refused.request_id());
            assert_eq!(body.get("detail").is_some(), target == SYNC);
        }
        answer_ab(&server, exchange).await;
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        assert_eq!(other_body.answer().await.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(upstream.arrived().is_none());
    }
}

#[tokio::test]
async fn a_key_of_another_caller_or_another_route_is_another_key() {
    let _frozen = freeze();
    let server = Arc::new(Server::start(&quick().await, "").await);
    let request = Keyed::sync(&server);
    let first = request.answer().await;
    let headers = [
        ("authorization", "Bearer other"),
        ("content-type", "application/json"),
        ("idempotency-key", "key"),
    ];
    let of_other = server
        .send("POST", SYNC, &headers, Some(&prompt(60).to_string()))
        .await;
    let of_other = Answer::read(of_other).await;
    let on_other_route = Keyed::stream(&server).answer().await;
    for other in [of_other, on_other_route] {
        assert_eq!(other.status, StatusCode::OK);
        assert_eq!(other.header(REPLAYED), None);
        assert_ne!(other.request_id(), first.request_id());
    }
}

#[tokio::test]
async fn what_the_headers_ask_for_must_make_sense_and_authentication_comes_first() {
    let _frozen = freeze();
    let server = Arc::new(Server::start(&quick().await, "").await);
    let long = "k".repeat(256);
    let keys = [
        ("", "idempotency-key"),
        ("a b", "idempotency-key"),
        (&long, "idempotency-key"),
    ];
    let mut chat_stream = chat();
    chat_stream["stream"] = true.into();
    for (target, body) in [(STREAM, prompt(5)), (CHAT, chat_stream)] {
        for (value, name) in keys {
            let refused = server.post_with(&[(name, value)], target, &body).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{value}");
            let error = &refused.json()["error"];
            assert_eq!(error["code"], "invalid_idempotency_key");
            assert!(error["message"].as_str().unwrap().contains("Idempotency-Key"));
        }
        for keep in ["-1", "301", "soon"] {
            let headers = [("idempotency-key", "key"), ("x-llm-engine-keep-seconds", keep)];
            let refused = server.post_with(&headers, target, &body).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{keep}");
            assert!(refused.body.contains("x-llm-engine-keep-seconds"));
            // Without a key it has no meaning.
            let answer = server.post_with(&headers[1..], target, &body).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
        let nobody = [("idempotency-key", ""), ("authorization", "Bearer nobody")];
        let refused = server
            .send("POST", target, &nobody, Some(&body.to_string()))
            .await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
}
