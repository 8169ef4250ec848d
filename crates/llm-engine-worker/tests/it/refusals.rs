//! Everything that is refused: nothing of it may reach llama.cpp, and nothing may be ignored.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::Client;
use crate::running::{CONTEXT_TOKENS, MODEL, Running};

/// The error of a request that must be refused.
async fn refused(client: &Client, path: &str, body: &Value) -> (StatusCode, Value) {
    let (status, answer) = client.post(path, body).await;
    assert!(status.is_client_error(), "{body} was answered with {answer}");
    let error = answer["error"].clone();
    assert!(
        error["message"].is_string() && error["type"].is_string(),
        "{answer}"
    );
    (status, error)
}

fn chat(name: &str, value: Value) -> Value {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
    body[name] = value;
    body
}

fn completion(name: &str, value: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "Hi", "max_tokens": 1});
    body[name] = value;
    body
}

#[tokio::test]
async fn what_the_runner_can_not_do_is_refused_with_400() {
    let worker = Running::start();
    let both = [
        ("n", json!(129)),
        ("logit_bias", json!({"50000000": 5})),
        ("logit_bias", json!({"x": 5})),
        ("logit_bias", json!({"1": 500})),
        ("logit_bias", json!([1])),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("min_p", json!(1.5)),
        ("repetition_penalty", json!(0)),
        ("skip_special_tokens", json!("no")),
        ("stop_token_ids", json!([-1])),
        ("stop_token_ids", json!("x")),
        ("top_logprobs", json!(21)),
        ("top_logprobs", json!(2)),
        ("temperature", json!(-1)),
        ("temperature", json!(1e30)),
        ("top_p", json!(0)),
        ("top_k", json!(0)),
        ("presence_penalty", json!(3)),
        ("stop", json!("")),
        ("stop", json!("x".repeat(2000))),
        ("stop", json!([["a"]])),
        ("stop", json!(vec!["a"; 257])),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-5)),
        ("ignore_eos", json!("yes")),
        ("seed", json!("x")),
    ];
    let chats = [
        ("logprobs", json!(3)),
        ("messages", json!([])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]),
        ),
        ("messages", json!([{"role": "user", "content": "a\u{0}b"}])),
        ("messages", json!([{"role": "<|im_start|>", "content": "a"}])),
    ];
    let completions = [
        ("prompt", json!([])),
        ("prompt", json!(vec![""; 129])),
        ("prompt", json!([1, 50_000_000])),
        ("prompt", json!([[1], -1])),
        ("prompt", json!([{"a": 1}])),
        ("prompt", json!("a\u{0}b")),
        ("suffix", json!("end")),
        ("echo", json!(true)),
        ("best_of", json!(3)),
        ("logprobs", json!(true)),
        ("logprobs", json!(21)),
    ];
    for (name, value) in both.iter().chain(&chats) {
        let (status, error) =
            refused(&worker.client, "/v1/chat/completions", &chat(name, value.clone())).await;
        assert_eq!(
            (status, &error["param"]),
            (StatusCode::BAD_REQUEST, &json!(name)),
            "{error}"
        );
    }
    for (name, value) in both.iter().chain(&completions) {
        let (status, error) = refused(
            &worker.client,
            "/v1/completions",
            &completion(name, value.clone()),
        )
        .await;
        assert_eq!(
            (status, &error["param"]),
            (StatusCode::BAD_REQUEST, &json!(name)),
            "{error}"
        );
    }
    assert_eq!(
        worker.client.metric("llm_engine_worker:decode_steps_total").await,
        0.0
    );
}

#[tokio::test]
async fn what_does_not_fit_into_the_context_is_refused_with_the_numbers() {
    let worker = Running::start();
    let client = &worker.client;
    let room = u64::from(CONTEXT_TOKENS);
    let (_, counted) = client.post("/tokenize", &json!({"prompt": "Hi"})).await;
    let fitting = room - counted["count"].as_u64().unwrap();
    let (status, error) = refused(
        client,
        "/v1/completions",
        &completion("max_tokens", json!(fitting + 1)),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&(fitting + 1).to_string()) && message.contains(&room.to_string()),
        "{message}"
    );
    let huge = refused(
        client,
        "/v1/completions",
        &completion("max_tokens", json!(u64::MAX)),
    )
    .await;
    assert_eq!(huge.1["code"], "context_length_exceeded");
    for prompt in [
        "word ".repeat(600),
        "é".repeat(1_000_000),
        "7".repeat(2_000_000),
        " ".repeat(3_000_000),
    ] {
        let (_, error) = refused(client, "/v1/completions", &completion("prompt", json!(prompt))).await;
        assert_eq!(error["code"], "context_length_exceeded");
        let messages = json!([{"role": "user", "content": prompt}]);
        let (_, error) = refused(client, "/v1/chat/completions", &chat("messages", messages)).await;
        assert_eq!(error["code"], "context_length_exceeded");
    }
    let mut full = completion("max_tokens", json!(fitting));
    full["ignore_eos"] = json!(true);
    full["temperature"] = json!(0);
    let (status, answer) = client.post("/v1/completions", &full).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["usage"]["total_tokens"], room);
}

#[tokio::test]
async fn what_is_not_a_request_is_refused() {
    let worker = Running::start();
    let client = &worker.client;
    for body in [
        json!([]),
        json!({}),
        json!({"model": MODEL}),
        json!({"model": 5, "prompt": "a"}),
    ] {
        assert_eq!(
            refused(client, "/v1/completions", &body).await.0,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            refused(client, "/v1/chat/completions", &body).await.0,
            StatusCode::BAD_REQUEST
        );
    }
    let other = completion("model", json!("other"));
    let (status, error) = refused(client, "/v1/completions", &other).await;
    assert_eq!(
        (status, &error["code"]),
        (StatusCode::NOT_FOUND, &json!("model_not_found"))
    );
    for body in [
        json!({}),
        json!({"prompt": "a", "messages": []}),
        json!({"prompt": [-1]}),
        json!({"prompt": ["a", "b"]}),
        json!("x"),
    ] {
        assert_eq!(
            refused(client, "/tokenize", &body).await.0,
            StatusCode::BAD_REQUEST
        );
    }
    assert_eq!(
        refused(client, "/cancel", &json!({})).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        refused(client, "/nowhere", &json!({})).await.0,
        StatusCode::NOT_FOUND
    );
    let large = completion("prompt", json!("x".repeat(4 * 1024 * 1024)));
    assert_eq!(
        refused(client, "/v1/completions", &large).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let deep = "[".repeat(100_000).into_bytes();
    let response = client.send("POST", "/v1/completions", None, deep).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let long_id = "x".repeat(300);
    let response = client
        .send("POST", "/v1/completions", Some(&long_id), Vec::new())
        .await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
