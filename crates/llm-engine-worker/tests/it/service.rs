//! Health, models, metrics, start and end.

use hyper::StatusCode;
use llm_engine_worker::{Error, Worker};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::running::{CONTEXT_TOKENS, MODEL, Running, options};

#[tokio::test]
async fn the_service_routes_answer() {
    let worker = Running::start();
    let (status, _) = worker.client.get("/health").await;
    assert_eq!(status, StatusCode::OK);
    let (_, models) = worker.client.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["data"][0]["id"], MODEL);
    let (_, metrics) = worker.client.get("/metrics").await;
    for name in [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
    ] {
        assert!(
            metrics.contains(&format!("{name}{{model_name=\"{MODEL}\"}} 0\n")),
            "{metrics}"
        );
    }
    let (_, tokens) = worker.client.post("/tokenize", &json!({"prompt": "a b c"})).await;
    assert_eq!(tokens["max_model_len"], CONTEXT_TOKENS);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let folder = TempDir::new().unwrap();
    drop(std::os::unix::net::UnixListener::bind(options(&folder).socket).unwrap());
    let worker = Worker::start(options(&folder)).unwrap();
    let second = Worker::start(options(&folder));
    assert!(matches!(second, Err(Error::Listen { .. })));
    worker.serve(async {}).unwrap();
    assert!(!options(&folder).socket.exists());
}

#[test]
fn what_can_not_be_served_is_an_error() {
    let folder = TempDir::new().unwrap();
    let mut missing = options(&folder);
    missing.gguf = folder.path().join("none.gguf");
    assert!(matches!(Worker::start(missing), Err(Error::NoModelFile { .. })));
    let mut broken = options(&folder);
    broken.gguf = folder.path().join("broken.gguf");
    std::fs::write(&broken.gguf, b"GGUF, but not really").unwrap();
    assert!(matches!(Worker::start(broken), Err(Error::Load { .. })));
    let mut many = options(&folder);
    many.parallel = std::num::NonZeroU32::new(257).unwrap();
    assert!(matches!(
        Worker::start(many),
        Err(Error::Option {
            option: "parallel",
            ..
        })
    ));
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused() {
    let worker = Running::start_with(|options| {
        options.parallel = std::num::NonZeroU32::MIN;
        options.max_waiting = 0;
    });
    let client = &worker.client;
    let endless = json!({"prompt": "Once", "max_tokens": 200, "ignore_eos": true});
    let mut running = client.stream("/v1/completions", Some("running"), endless).await;
    running.next_chunk().await;
    let (status, body) = client
        .post("/v1/completions", &json!({"model": MODEL, "prompt": "Hi"}))
        .await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"]["code"], "queue_full");
    let duplicate = json!({"model": MODEL, "prompt": "Hi"}).to_string().into_bytes();
    let response = client
        .send("POST", "/v1/completions", Some("running"), duplicate)
        .await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    client.cancel("running").await.unwrap();
    let (status, _) = client
        .post("/v1/completions", &json!({"model": MODEL, "prompt": "Hi"}))
        .await;
    assert_eq!(status, StatusCode::OK);
}
