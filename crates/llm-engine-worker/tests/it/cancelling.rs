//! Requests that nobody wants any more.

use hyper::StatusCode;
use llm_engine_wire::openai::Usage;
use serde_json::{Value, json};

use crate::client::text;
use crate::running::{CONTEXT_TOKENS, MODEL, Running};

const STEPS: &str = "llm_engine_worker:decode_steps_total";
const GENERATED: &str = "vllm:generation_tokens_total";

/// A stream that would go on for hundreds of tokens.
fn endless() -> Value {
    json!({
        "prompt": "Once upon a time", "max_tokens": CONTEXT_TOKENS - 10, "ignore_eos": true,
        "stream_options": {"continuous_usage_stats": true},
    })
}

#[tokio::test]
async fn a_cancelled_request_ends_at_once_and_reports_all_that_it_used() {
    let worker = Running::start();
    let client = &worker.client;
    let mut stream = client.stream("/v1/completions", Some("one"), endless()).await;
    for _ in 0..3 {
        stream.next_chunk().await;
    }
    let usage = client.cancel("one").await.unwrap();
    let (steps, generated) = (client.metric(STEPS).await, client.metric(GENERATED).await);
    assert_eq!(generated, usage.completion_tokens as f64);
    assert_eq!(client.metric("vllm:num_requests_running").await, 0.0);
    let chunks = stream.chunks().await;
    let last = chunks.last().unwrap();
    assert_eq!(last.choices[0].finish_reason.as_deref(), Some("abort"));
    assert_eq!(last.usage, Some(usage));
    assert_eq!(client.cancel("one").await, Some(usage));
    assert!(client.metric(STEPS).await <= steps + 1.0);
    assert_eq!(client.metric(GENERATED).await, generated);
    assert_eq!(
        client.metric("llm_engine_worker:requests_cancelled_total").await,
        1.0
    );
}

#[tokio::test]
async fn a_dropped_connection_frees_its_place_and_keeps_its_usage() {
    let worker = Running::start_with(|options| options.parallel = std::num::NonZeroU32::MIN);
    let client = &worker.client;
    let mut stream = client.stream("/v1/completions", Some("gone"), endless()).await;
    let seen = stream.next_chunk().await.usage.unwrap();
    drop(stream);
    // There is one place only, so this is answered when the first request has lost it.
    let answer = client.ask(json!({"max_tokens": 1}), "Hello").await;
    let usage = client.cancel("gone").await.unwrap();
    assert!(usage.completion_tokens >= seen.completion_tokens);
    assert!(usage.completion_tokens < u64::from(CONTEXT_TOKENS) - 10);
    let generated = usage.completion_tokens + answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(client.metric(GENERATED).await, generated as f64);
}

#[tokio::test]
async fn a_waiting_request_can_be_cancelled_and_has_used_nothing() {
    let worker = Running::start_with(|options| options.parallel = std::num::NonZeroU32::MIN);
    let client = &worker.client;
    let mut running = client.stream("/v1/completions", Some("running"), endless()).await;
    running.next_chunk().await;
    let body = json!({"model": MODEL, "prompt": "Hi", "max_tokens": 5})
        .to_string()
        .into_bytes();
    let waiting = client.send("POST", "/v1/completions", Some("waiting"), body);
    let cancel = async {
        while client.metric("vllm:num_requests_waiting").await < 1.0 {
            tokio::task::yield_now().await;
        }
        client.cancel("waiting").await
    };
    let (response, usage) = tokio::join!(waiting, cancel);
    assert_eq!(usage, Some(Usage::default()));
    assert_eq!(response.status(), StatusCode::OK);
    client.cancel("running").await.unwrap();
}

#[tokio::test]
async fn a_finished_request_still_tells_its_usage() {
    let worker = Running::start();
    let client = &worker.client;
    let body = json!({"model": MODEL, "prompt": "Hi", "max_tokens": 5, "ignore_eos": true});
    let response = client
        .send(
            "POST",
            "/v1/completions",
            Some("done"),
            body.to_string().into_bytes(),
        )
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(client.cancel("done").await.unwrap().completion_tokens, 5);
    assert_eq!(client.cancel("other").await, None);
}

#[tokio::test]
async fn a_request_that_moves_to_another_place_goes_on_as_if_nothing_had_happened() {
    let worker = Running::start();
    let client = &worker.client;
    let ask = json!({
        "prompt": "The capital of France is Paris. The capital of Italy is Rome. The capital of France is",
        "max_tokens": 40, "temperature": 0, "ignore_eos": true,
    });
    let alone = client
        .stream("/v1/completions", None, ask.clone())
        .await
        .chunks()
        .await;
    let _first = client.stream("/v1/completions", Some("first"), endless()).await;
    let _second = client.stream("/v1/completions", Some("second"), endless()).await;
    let mut third = client.stream("/v1/completions", None, ask).await;
    let mut chunks = vec![third.next_chunk().await];
    // Leaves a gap between the first and the third, which the third then closes.
    client.cancel("second").await.unwrap();
    chunks.extend(third.chunks().await);
    // For this file llama.cpp computes each sequence of a batch in the same way, so that even the texts are equal.
    assert_eq!(text(&chunks), text(&alone));
    client.cancel("first").await.unwrap();
}
