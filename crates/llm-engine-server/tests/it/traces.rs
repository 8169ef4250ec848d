//! Traces of requests: what a collector is sent, and what deployments are told.

use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Collector, Exchange, Span, Upstream, freeze};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{Answer, Log, STREAM, SYNC, Server, chat, metric, prompt, quick, running_stream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const CHAT: &str = "/v1/chat/completions";

const README: &str = include_str!("../../../../README.md");

/// As long as spans are gathered, and a moment.
const GATHER: Duration = Duration::from_millis(5001);

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A section that sends traces there.
fn telemetry(collector: &Collector, more: &str) -> String {
    format!("[telemetry]\nendpoint = '{}'\n{more}\n", collector.url())
}

/// The spans of a server that has answered what it was asked.
async fn spans(server: Server, collector: &mut Collector) -> Vec<Span> {
    server.shut_down();
    let (_, spans) = tokio::join!(server.ended(), async { collector.next().await.take() });
    for name in spans.iter().flat_map(|span| span.attributes.keys()) {
        assert!(
            README.contains(&format!("`{name}`")),
            "{name} is not in the README"
        );
    }
    spans
}

/// The server's own span, and that of its attempt.
fn pair(spans: Vec<Span>) -> (Span, Span) {
    let [attempt, request] = <[Span; 2]>::try_from(spans).unwrap();
    assert_eq!((request.kind, attempt.kind), (2, 3), "of a server, of a client");
    assert_eq!(attempt.trace_id, request.trace_id);
    assert_eq!(attempt.parent_span_id, request.span_id);
    (request, attempt)
}

/// An upstream that hands on with what headers it was asked.
async fn listening() -> (String, tokio::sync::mpsc::UnboundedReceiver<[Option<String>; 2]>) {
    let (sender, heard) = tokio::sync::mpsc::unbounded_channel();
    let url = Upstream::answering(move |exchange: Exchange| {
        let header = |name| Some(exchange.headers.get(name)?.to_str().unwrap().to_owned());
        sender
            .send([header("traceparent"), header("tracestate")])
            .unwrap();
        exchange.answer_as_asked(3, &["a", "b"]);
    })
    .await;
    (url, heard)
}

#[tokio::test]
async fn a_request_is_a_span_of_its_caller_s_trace_and_its_attempt_is_one_within() {
    let mut collector = Collector::start().await;
    let (upstream, mut heard) = listening().await;
    let server = Server::start(&upstream, &telemetry(&collector, "")).await;
    let mut body = chat();
    body["temperature"] = 0.5.into();
    body["n"] = 2.into();
    let sent = [("traceparent", &*parent("01")), ("tracestate", "a=1,b=2")];
    let answer = server.post_with(&sent, CHAT, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let request_id = answer.request_id().to_owned();
    let port = upstream.split(['/', ':']).nth(4).unwrap().parse::<u16>().unwrap();

    let (request, attempt) = pair(spans(server, &mut collector).await);
    assert_eq!(
        (request.name.as_str(), attempt.name.as_str()),
        ("chat m", "chat upstream")
    );
    assert_eq!(
        (request.trace_id.as_str(), request.parent_span_id.as_str()),
        (TRACE, CALLER)
    );
    assert!(!request.is_error && !attempt.is_error);
    let [told_parent, told_state] = heard.recv().await.unwrap();
    assert_eq!(told_parent, Some(format!("00-{TRACE}-{}-01", attempt.span_id)));
    assert_eq!(told_state.as_deref(), Some("a=1,b=2"));
    assert_eq!(request.trace_state, "a=1,b=2");

    let mut attributes = Value::from(request.attributes);
    assert!(
        attributes["llm_engine.admitted_after_ms"]
            .take()
            .as_f64()
            .unwrap()
            >= 0.0
    );
    assert_eq!(
        attributes,
        json!({
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "llm_engine",
            "gen_ai.request.model": "m",
            "gen_ai.request.max_tokens": 5,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.choice.count": 2,
            "gen_ai.response.model": "m",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 2,
            "http.request.method": "POST",
            "http.route": CHAT,
            "http.response.status_code": 200,
            "llm_engine.request_id": request_id,
            "llm_engine.caller": "k",
            "llm_engine.outcome": "completed",
            "llm_engine.attempts": 1,
            "llm_engine.usage_estimated": false,
            "llm_engine.nano_usd": 0,
            "llm_engine.admitted_after_ms": null,
        })
    );
    assert_eq!(
        Value::from(attempt.attributes),
        json!({
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "upstream",
            "gen_ai.request.max_tokens": 5,
            "gen_ai.request.stream": false,
            "gen_ai.response.model": "upstream",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 2,
            "server.address": "127.0.0.1",
            "server.port": port,
        })
    );
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one_and_a_stream_says_when_its_first_token_came() {
    let mut collector = Collector::start().await;
    let server = Server::start(&quick().await, &telemetry(&collector, "")).await;
    let answer = Answer::read(server.post(STREAM, &prompt(5)).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    let (request, attempt) = pair(spans(server, &mut collector).await);
    assert_eq!(
        (request.name.as_str(), request.parent_span_id.as_str()),
        ("text_completion m", "")
    );
    assert_eq!(request.trace_id.len(), 32);
    assert!(
        request.attributes["gen_ai.response.time_to_first_chunk"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_eq!(attempt.attributes["gen_ai.request.stream"], true);
}

#[tokio::test]
async fn a_refusal_is_a_span_with_its_policy_and_without_an_attempt_or_a_secret() {
    let mut collector = Collector::start().await;
    let policy = "[[policies]]\nname = 'one'\nper = ['key']\nrequests = { limit = 1, window = '1h' }\n";
    let telemetry = telemetry(&collector, policy);
    let server = Server::start(&quick().await, &telemetry).await;
    let secret = json!({ "prompt": "the-heliotrope-password", "max_new_tokens": 5, "temperature": 0.2,
                         "stop_sequences": ["the-heliotrope-end"] });
    for status in [200, 429] {
        assert_eq!(
            Answer::read(server.post_as("other", SYNC, &secret).await)
                .await
                .status,
            status
        );
    }
    let wrong = Answer::read(server.post_as("key-of-nobody", SYNC, &secret).await).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);

    server.shut_down();
    let (_, (body, spans)) = tokio::join!(server.ended(), async {
        let export = collector.next().await;
        (export.body.clone(), export.take())
    });
    for secret in ["heliotrope", "key-of-nobody", "Bearer"] {
        let found = body.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    assert_eq!(spans.len(), 3, "who has no key has no span");
    let refused = &spans[2];
    assert!(!refused.is_error, "it was no error of the server");
    for (name, value) in [
        ("error.type", json!("rate_limited")),
        ("http.response.status_code", json!(429)),
        ("llm_engine.caller", json!("other")),
        ("llm_engine.outcome", json!("rate_limited")),
        ("llm_engine.policy", json!("one")),
        ("llm_engine.attempts", json!(0)),
    ] {
        assert_eq!(refused.attributes[name], value, "{name}");
    }
    assert!(refused.attributes["llm_engine.retry_after_ms"].as_u64().unwrap() > 3_000_000);
    assert!(refused.attributes.contains_key("llm_engine.booked"));
    assert!(!refused.attributes.contains_key("gen_ai.response.model"));
}

#[tokio::test]
async fn what_a_deployment_fails_at_is_an_error_of_both_spans() {
    let mut collector = Collector::start().await;
    let failing = Upstream::answering(|exchange| exchange.answer(500, &[], json!({}))).await;
    let server = Server::start(&failing, &telemetry(&collector, "")).await;
    let answer = Answer::read(server.post(CHAT, &chat()).await).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let (request, attempt) = pair(spans(server, &mut collector).await);
    for span in [request, attempt] {
        assert!(span.is_error);
        assert_eq!(span.attributes["error.type"], "upstream_failed");
    }
}

#[tokio::test]
async fn a_stream_that_is_hung_up_ends_its_span() {
    let mut collector = Collector::start().await;
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), &telemetry(&collector, "")).await;
    let (response, stream) = running_stream(&server, &mut upstream, 60).await;
    drop(response);
    stream.hung_up().await;
    let (request, _) = pair(spans(server, &mut collector).await);
    assert_eq!(request.attributes["error.type"], "abandoned");
    assert_eq!(request.attributes["gen_ai.usage.output_tokens"], 1);
}

#[tokio::test]
async fn what_is_not_in_the_sample_is_not_sent_and_the_deployment_is_told_so() {
    let mut collector = Collector::start().await;
    let (upstream, mut heard) = listening().await;
    let server = Server::start(&upstream, &telemetry(&collector, "sampling_ratio = 0")).await;
    let not_sampled = parent("00");
    for sent in [&[("traceparent", &*not_sampled)][..], &[]] {
        assert_eq!(server.post_with(sent, CHAT, &chat()).await.status, StatusCode::OK);
        let [told, _] = heard.recv().await.unwrap();
        let told = told.unwrap();
        assert!(told.ends_with("-00") && told != not_sampled, "{told}");
        assert_eq!(told.contains(TRACE), !sent.is_empty());
    }
    // The caller decides where it says so.
    server
        .post_with(&[("traceparent", &parent("01"))], CHAT, &chat())
        .await;
    assert_eq!(spans(server, &mut collector).await.len(), 2);
}

#[tokio::test]
async fn without_telemetry_the_caller_s_trace_is_passed_on_as_it_came_and_none_is_made_up() {
    let (upstream, mut heard) = listening().await;
    let server = Server::start(&upstream, "").await;
    let odd = [("traceparent", "cc-not-a-trace"), ("tracestate", "x")];
    let parent = parent("01");
    let good = [("traceparent", &*parent), ("tracestate", "a=1,b=2")];
    for sent in [&good[..], &odd, &good[..1], &[]] {
        assert_eq!(server.post_with(sent, CHAT, &chat()).await.status, StatusCode::OK);
        let told = heard.recv().await.unwrap();
        let value = |name| {
            sent.iter()
                .find(|(found, _)| *found == name)
                .map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(told, [value("traceparent"), value("tracestate")]);
    }
}

#[tokio::test]
async fn the_log_names_the_trace_whether_or_not_it_is_recorded_here() {
    let log = Log::default();
    let _logging = log.begin();
    let mut collector = Collector::start().await;
    let upstream = quick().await;
    for telemetry in [telemetry(&collector, ""), String::new()] {
        let server = Server::start(&upstream, &telemetry).await;
        server
            .post_with(&[("traceparent", &parent("01"))], CHAT, &chat())
            .await;
        server
            .post_with(&[("traceparent", "nonsense")], CHAT, &chat())
            .await;
        server.shut_down();
        server.ended().await;
    }
    collector.next().await.take();
    let lines = log.lines();
    let records: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("llm_engine::request"))
        .collect();
    let found: Vec<bool> = records
        .iter()
        .map(|line| line.contains(&format!("trace_id={TRACE}")))
        .collect();
    assert_eq!(found, [true, false, true, false], "{records:?}");
    let named: Vec<bool> = records.iter().map(|line| line.contains("trace_id=")).collect();
    assert_eq!(named, [true, true, true, false], "where one is begun it is named");
}

#[tokio::test]
async fn spans_go_together_with_what_the_collector_wants_to_see() {
    let _frozen = freeze();
    let mut collector = Collector::start().await;
    let more = "service_name = 'front'\nheaders_env = { x-collector-key = 'PATH' }";
    let server = Server::start(&quick().await, &telemetry(&collector, more)).await;
    for _ in 0..3 {
        assert_eq!(server.complete().await.status, StatusCode::OK);
    }
    server.settle().await;
    assert!(collector.arrived().is_none(), "they are gathered");
    advance(GATHER).await;
    let export = collector.next().await;
    assert_eq!(export.path, "/v1/traces");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");
    assert_eq!(export.headers["x-collector-key"], std::env::var("PATH").unwrap());
    assert_eq!(export.resource["service.name"], "front");
    assert_eq!(export.take().len(), 6);
    server.settle().await;
    let sent = metric(&server, "llm_engine_trace_spans_total{outcome=\"sent\"}").await;
    assert_eq!(sent.as_deref(), Some("6"));
}

async fn lost(server: &Server) -> Option<String> {
    metric(server, "llm_engine_trace_spans_total{outcome=\"lost\"}").await
}

#[tokio::test]
async fn a_collector_that_is_down_or_refuses_costs_requests_nothing_and_what_is_lost_is_said_once_a_minute() {
    let _frozen = freeze();
    let log = Log::default();
    let _logging = log.begin();
    let mut collector = Collector::start().await;
    let server = Server::start(&quick().await, &telemetry(&collector, "")).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
    server.settle().await;
    advance(GATHER).await;
    collector.next().await.refuse(StatusCode::UNAUTHORIZED);
    server.settle().await;
    assert_eq!(lost(&server).await.as_deref(), Some("2"));
    drop(collector);
    for _ in 0..3 {
        assert_eq!(server.complete().await.status, StatusCode::OK);
        server.settle().await;
        advance(GATHER).await;
        server.settle().await;
    }
    assert_eq!(lost(&server).await.as_deref(), Some("8"));
    let said = |log: &Log| -> Vec<String> {
        let lines = log.lines();
        lines
            .into_iter()
            .filter(|line| line.contains("spans of requests are lost"))
            .collect()
    };
    let first = said(&log);
    assert!(
        first.len() == 1 && first[0].contains("401") && first[0].contains("spans=2"),
        "{first:?}"
    );
    advance(Duration::from_secs(60)).await;
    server.settle().await;
    let both = said(&log);
    assert!(
        both.len() == 2 && both[1].contains("refused") && both[1].contains("spans=6"),
        "{both:?}"
    );
}

#[tokio::test]
async fn a_collector_that_does_not_answer_holds_up_the_end_for_five_seconds_at_most() {
    let _frozen = freeze();
    let mut collector = Collector::start().await;
    let server = Server::start(&quick().await, &telemetry(&collector, "")).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
    server.shut_down();
    let mut ended = std::pin::pin!(server.ended());
    let unanswered = tokio::select! {
        ended = &mut ended => panic!("it does not try: {ended:?}"),
        export = collector.next() => export,
    };
    assert_eq!(unanswered.spans.len(), 2);
    advance(Duration::from_millis(5001)).await;
    ended.await;
}
