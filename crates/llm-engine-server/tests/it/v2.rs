use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};
use serde_json::{Value, json};

use crate::harness::{Answer, Server, chat};

const CHAT: &str = "/v2/chat/completions";
const COMPLETIONS: &str = "/v2/completions";

/// A server in front of an upstream that answers everything with 7 tokens of prompt and 2 generated.
async fn server(more: &str) -> Server {
    let upstream = Upstream::answering(|exchange| exchange.answer_as_asked(7, &["The", " sky"])).await;
    Server::start(&upstream, more).await
}

async fn post(server: &Server, target: &str, body: &Value) -> Answer {
    Answer::read(server.post(target, body).await).await
}

/// A chat with one field more.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut body = chat();
    body[name] = value.into();
    body
}

fn completion() -> Value {
    json!({ "model": "m", "prompt": "p" })
}

/// What the upstream is asked, of a request that it answers.
async fn sent_on(target: &str, body: &Value) -> Value {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (answer, seen) = tokio::join!(post(&server, target, body), async {
        let exchange = upstream.next().await;
        let seen = exchange.body.clone();
        exchange.answer_as_asked(1, &["a"]);
        seen
    });
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    seen
}

#[tokio::test]
async fn a_chat_is_answered_in_openai_s_shape_under_the_public_name() {
    let server = server("").await;
    let answer = post(&server, CHAT, &chat()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("chat.completion"), &json!("m"))
    );
    let message = json!({ "role": "assistant", "content": "The sky" });
    assert_eq!(body["choices"][0]["message"], message);
    assert_eq!(body["usage"]["total_tokens"], 9);
}

#[tokio::test]
async fn a_completion_is_answered_in_openai_s_shape_under_the_public_name() {
    let server = server("").await;
    let body = post(&server, COMPLETIONS, &completion()).await.json();
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("text_completion"), &json!("m"))
    );
    assert_eq!(body["choices"][0]["text"], "The sky");
}

#[tokio::test]
async fn a_stream_ends_with_done_and_has_a_usage_only_if_that_was_asked_for() {
    let server = server("").await;
    for (target, mut body) in [(CHAT, chat()), (COMPLETIONS, completion())] {
        body["stream"] = true.into();
        let answer = post(&server, target, &body).await;
        assert_eq!(
            answer.header("content-type"),
            Some("text/event-stream; charset=utf-8")
        );
        let events = answer.events();
        assert_eq!(*events.last().unwrap(), "[DONE]");
        assert!(!answer.body.contains("usage"), "{}", answer.body);

        // Also the options are read as laxly as everything.
        body["stream_options"] = json!({ "include_usage": "yes" });
        let answer = post(&server, target, &body).await;
        let events = answer.events();
        let usage: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
        assert_eq!(usage["choices"], json!([]));
        let expected = json!({ "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9 });
        assert_eq!(usage["usage"], expected);
        assert!(
            events[..events.len() - 1]
                .iter()
                .all(|chunk| chunk.contains("\"model\":\"m\""))
        );
    }
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_a_status() {
    let upstream = Upstream::answering(|exchange| exchange.answer(500, &[], json!({}))).await;
    let server = Server::start(&upstream, "").await;
    let answer = post(&server, CHAT, &with("stream", true)).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"]["code"], "upstream_failed");
    assert_eq!(answer.json()["detail"], answer.json()["error"]["message"]);
}

#[tokio::test]
async fn what_was_read_laxly_reaches_the_upstream_as_plain_openai() {
    let body = json!({
        "model": "m", "messages": [{ "role": "user", "content": "hi" }],
        "stream": "no", "temperature": "0.5", "max_tokens": 5.0, "n": true, "top_logprobs": "3", "logprobs": 1,
    });
    let seen = sent_on(CHAT, &body).await;
    let expected = json!({
        "model": "upstream", "messages": [{ "role": "user", "content": "hi" }],
        "stream": false, "temperature": 0.5, "max_tokens": 5, "n": 1, "top_logprobs": 3, "logprobs": true,
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_was_plain_already_and_what_nobody_knows_reaches_the_upstream_untouched() {
    let mut body = chat();
    body["temperature"] = 1.into();
    body["logit_bias"] = json!({ "1": 5 });
    body["guided_choice"] = json!(["a", "b"]);
    body["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    body["unknown_field"] = json!({ "x": [null, 1.5] });
    let seen = sent_on(CHAT, &body).await;
    body["model"] = "upstream".into();
    assert_eq!(seen, body);
}

#[tokio::test]
async fn a_completion_without_a_maximum_asks_for_openai_s_default() {
    assert_eq!(sent_on(COMPLETIONS, &completion()).await["max_tokens"], 16);
}

#[tokio::test]
async fn every_problem_is_told_beside_openai_s_error() {
    let server = server("").await;
    let body =
        json!({ "messages": [{ "content": "hi" }, 5], "temperature": "hot", "stop": 5, "stream": "maybe" });
    let answer = post(&server, CHAT, &body).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let answer = answer.json();
    let found: Vec<(&str, Value)> = answer["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (problem["type"].as_str().unwrap(), problem["loc"].clone()))
        .collect();
    let expected = [
        ("float_parsing", json!(["body", "temperature"])),
        ("missing", json!(["body", "messages", 0, "role"])),
        ("model_attributes_type", json!(["body", "messages", 1])),
        ("missing", json!(["body", "model"])),
        ("bool_parsing", json!(["body", "stream"])),
        ("string_type", json!(["body", "stop", "str"])),
        ("list_type", json!(["body", "stop", "StopConfiguration1"])),
    ];
    assert_eq!(found, expected);
    let error = &answer["error"];
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(error["param"], "temperature");
}

#[tokio::test]
async fn malformed_json_comes_before_the_key_and_the_key_before_the_fields() {
    let server = server("").await;
    let json = ("content-type", "application/json");
    let unnamed = Answer::read(server.send("POST", CHAT, &[json], Some("{")).await).await;
    assert_eq!(unnamed.status, StatusCode::UNPROCESSABLE_ENTITY);
    let unnamed = Answer::read(server.send("POST", CHAT, &[json], Some("{}")).await).await;
    assert_eq!(unnamed.status, StatusCode::UNAUTHORIZED);
    assert_eq!(unnamed.header("www-authenticate"), Some("Bearer"));
    assert_eq!(unnamed.json()["detail"], "No authentication was passed in");
    let wrong = Answer::read(server.post_as("nobody", COMPLETIONS, &json!({})).await).await;
    assert_eq!(wrong.json()["detail"], "Could not authenticate user");
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let server = server("").await;
    let answer = post(&server, CHAT, &with("model", "nope")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["detail"], "there is no model 'nope'");
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn what_no_model_can_do_is_a_bad_request() {
    let server = server("").await;
    for (name, value) in [("max_tokens", 0), ("max_tokens", -1), ("top_k", 0)] {
        let answer = post(&server, CHAT, &with(name, value)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(answer.json()["error"]["param"], name);
        assert_eq!(answer.json()["detail"], answer.json()["error"]["message"]);
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_error_event_and_no_done() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let body = with("stream", true);
    let (answer, ()) = tokio::join!(post(&server, CHAT, &body), async {
        let stream = upstream.next().await.stream();
        stream.text("a");
        stream.event(&json!({ "error": { "message": "out of memory" } }));
    });
    let events = answer.events();
    let last: Value = serde_json::from_str(events[events.len() - 1]).unwrap();
    assert_eq!(last["error"]["code"], "upstream_failed");
}

#[tokio::test]
async fn a_policy_for_the_route_refuses_there_alone_with_a_detail() {
    let _frozen = freeze();
    let policy = format!(
        "[[policies]]\nname = 'p'\nmatch = {{ route = '{CHAT}' }}\nrequests = {{ limit = 1, window = '1m' }}"
    );
    let server = server(&policy).await;
    let admitted = post(&server, CHAT, &chat()).await;
    assert_eq!(admitted.status, StatusCode::OK);
    assert_eq!(admitted.header("x-ratelimit-remaining-requests"), Some("0"));

    let refused = post(&server, CHAT, &chat()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.retry_after().as_secs(), 60);
    assert_eq!(refused.json()["error"]["policy"], "p");
    assert_eq!(refused.json()["detail"], refused.json()["error"]["message"]);

    for target in [COMPLETIONS, "/v1/completions"] {
        assert_eq!(
            post(&server, target, &completion()).await.status,
            StatusCode::OK,
            "{target}"
        );
    }
    let limits = server.get("/v1/limits").await.json();
    assert_eq!(limits["data"][0]["limits"][0]["route"], CHAT);
    let explained = server
        .get(&format!("/v1/limits/explain/{}", refused.request_id()))
        .await;
    assert_eq!(explained.status, StatusCode::OK);
}

#[tokio::test]
async fn a_budget_that_is_gone_is_no_429_here() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 1, window = 'calendar-day' }";
    let server = server(policy).await;
    assert_eq!(post(&server, CHAT, &chat()).await.status, StatusCode::OK);
    let refused = post(&server, CHAT, &chat()).await;
    assert_eq!(refused.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(refused.header("x-should-retry"), Some("false"));
}
