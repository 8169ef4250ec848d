use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mock_engine::{EngineSetup, MockEngine, Seen};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(5);

async fn post(engine: &MockEngine, route: &str, body: &Value) -> Response<Incoming> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("{}/v1/{route}", engine.url()))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap();
    client.request(request).await.unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn chat(tokens: u64, more: Value) -> Value {
    let mut body = json!({
        "model": "m", "messages": [{ "role": "user", "content": "Hello" }], "mock_output_tokens": tokens,
    });
    let Value::Object(more) = more else {
        panic!("not an object: {more}")
    };
    body.as_object_mut().unwrap().extend(more);
    body
}

/// What the engine has seen as soon as this holds.
async fn seen(engine: &MockEngine, holds: impl Fn(&Seen) -> bool) -> Seen {
    let looking = async {
        loop {
            let seen = engine.seen();
            if holds(&seen) {
                return seen;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it is seen soon")
}

#[tokio::test]
async fn a_stream_has_a_chunk_for_each_token_and_then_the_usage() {
    let engine = MockEngine::start(EngineSetup::default());
    let body = chat(
        5,
        json!({ "stream": true, "stream_options": { "include_usage": true } }),
    );
    let begun = Instant::now();
    let answer = text(post(&engine, "chat/completions", &body).await).await;
    // One step reads the prompt, and five write.
    assert!(begun.elapsed() >= Duration::from_millis(6 * 12));
    assert_eq!(answer.matches("word").count(), 5);
    assert_eq!(answer.matches(r#""finish_reason":"stop""#).count(), 1);
    assert!(answer.contains(r#""completion_tokens":5"#), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_ends_where_the_request_bounds_it() {
    let engine = MockEngine::start(EngineSetup::default());
    let body = json!({ "model": "m", "prompt": "123456", "max_tokens": 2, "mock_output_tokens": 5 });
    let answer: Value = serde_json::from_str(&text(post(&engine, "completions", &body).await).await).unwrap();
    assert_eq!(answer["choices"][0]["text"], " word word");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(
        answer["usage"],
        json!({ "prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4 })
    );
}

#[tokio::test]
async fn who_hangs_up_leaves_the_engine_at_once() {
    let engine = MockEngine::start(EngineSetup::default());
    let mut answer = post(
        &engine,
        "chat/completions",
        &chat(2_000, json!({ "stream": true })),
    )
    .await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(engine.seen().running, 1);
    let hung_up = Instant::now();
    drop(answer);
    let seen = seen(&engine, |seen| !seen.aborts.is_empty()).await;
    assert_eq!(seen.running, 0);
    assert!(seen.aborts[0].at.duration_since(hung_up) < Duration::from_millis(100));
    assert!(seen.aborts[0].written.unwrap() < 100);
}

#[tokio::test]
async fn who_hangs_up_on_the_way_never_reaches_the_engine() {
    let engine = MockEngine::start(EngineSetup {
        base_seconds: 2.0,
        ..EngineSetup::default()
    });
    let body = chat(5, json!({ "stream": true }));
    let asking = post(&engine, "chat/completions", &body);
    assert!(timeout(Duration::from_millis(100), asking).await.is_err());
    let seen = seen(&engine, |seen| !seen.aborts.is_empty()).await;
    assert_eq!(seen.requests, 1);
    assert_eq!(seen.aborts[0].written, None);
}
