//! `/v1/embeddings`.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::running::{CONTEXT_TOKENS, MODEL, Running};

async fn embed(client: &Client, input: Value) -> Value {
    let (status, answer) = client
        .post("/v1/embeddings", &json!({"model": MODEL, "input": input}))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

fn vector(answer: &Value, index: usize) -> Vec<f64> {
    assert_eq!(answer["data"][index]["index"], index);
    assert_eq!(answer["data"][index]["object"], "embedding");
    let numbers = answer["data"][index]["embedding"].as_array().unwrap();
    numbers.iter().map(|number| number.as_f64().unwrap()).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_have_directions_and_like_texts_like_ones() {
    let worker = Running::start();
    let client = &worker.client;
    let texts = [
        "The cat sleeps on the sofa.",
        "A cat is asleep on the couch.",
        "Interest rates rose by half a percent.",
    ];
    let answer = embed(client, json!(texts)).await;
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("list"), &json!(MODEL))
    );
    let vectors: Vec<Vec<f64>> = (0..3).map(|index| vector(&answer, index)).collect();
    for (text, own) in texts.iter().zip(&vectors) {
        assert_eq!(own.len(), 576);
        assert!((product(own, own) - 1.0).abs() < 1e-5);
        let alone = vector(&embed(client, json!(text)).await, 0);
        assert!(product(own, &alone) > 0.9999);
    }
    assert!(product(&vectors[0], &vectors[1]) > product(&vectors[0], &vectors[2]));
    let (_, counted) = client.post("/tokenize", &json!({"prompt": texts[0]})).await;
    let by_number = embed(client, counted["tokens"].clone()).await;
    assert!(product(&vector(&by_number, 0), &vectors[0]) > 0.9999);
    assert_eq!(
        by_number["usage"],
        json!({"prompt_tokens": counted["count"], "total_tokens": counted["count"]})
    );
}

#[tokio::test]
async fn a_text_longer_than_a_step_is_read_to_its_end() {
    let worker = Running::start();
    let long = "The sky is blue and the grass is green. ".repeat(15);
    let answer = embed(
        &worker.client,
        json!([format!("{long}red"), format!("{long}seven")]),
    )
    .await;
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 3 * 32);
    let likeness = product(&vector(&answer, 0), &vector(&answer, 1));
    assert!(likeness > 0.9 && likeness < 0.999_999, "{likeness}");
}

#[tokio::test]
async fn base64_says_the_same() {
    let worker = Running::start();
    let numbers = vector(&embed(&worker.client, json!("Hello")).await, 0);
    let body = json!({"model": MODEL, "input": "Hello", "encoding_format": "base64", "dimensions": 576});
    let (_, answer) = worker.client.post("/v1/embeddings", &body).await;
    let encoded = answer["data"][0]["embedding"].as_str().unwrap();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let decoded = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes));
    assert_eq!(decoded.len(), numbers.len());
    assert!(
        decoded
            .zip(&numbers)
            .all(|(decoded, &number)| (f64::from(decoded) - number).abs() < 1e-6)
    );
}

#[tokio::test]
async fn a_running_stream_is_not_disturbed() {
    let worker = Running::start();
    let client = &worker.client;
    let ask = json!({"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "ignore_eos": true});
    let alone = client
        .stream("/v1/completions", None, ask.clone())
        .await
        .chunks()
        .await;
    let mut stream = client.stream("/v1/completions", None, ask).await;
    let mut chunks = vec![stream.next_chunk().await];
    for _ in 0..3 {
        embed(client, json!(["Hello", "The sky is blue"])).await;
    }
    chunks.extend(stream.chunks().await);
    assert_eq!(text(&chunks), text(&alone));
}

#[tokio::test]
async fn what_can_not_be_embedded_is_refused() {
    let worker = Running::start();
    let asked = [
        ("input", json!([])),
        ("input", json!(5)),
        ("input", json!([[]])),
        ("input", json!(["a", 5])),
        ("input", json!("a\u{0}b")),
        ("input", json!("word ".repeat(2 * CONTEXT_TOKENS as usize))),
        ("input", json!(vec!["a"; 2049])),
        ("dimensions", json!(64)),
        ("encoding_format", json!("hex")),
    ];
    for (name, value) in asked {
        let mut body = json!({"model": MODEL, "input": "Hi"});
        body[name] = value;
        let (status, answer) = worker.client.post("/v1/embeddings", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["error"]["param"], name, "{answer}");
    }
    let (status, _) = worker
        .client
        .post("/v1/embeddings", &json!({"model": "other", "input": "Hi"}))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
