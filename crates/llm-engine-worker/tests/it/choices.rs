//! Several answers to one request.

use serde_json::{Value, json};

use crate::client::Client;
use crate::running::{MODEL, Running};

const PROMPT: &str = "Once upon a time there was a king who";

async fn complete(client: &Client, mut fields: Value) -> Value {
    fields["model"] = json!(MODEL);
    let (status, answer) = client.post("/v1/completions", &fields).await;
    assert_eq!(status, hyper::StatusCode::OK, "{answer}");
    answer
}

fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().unwrap();
    for (number, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], number);
    }
    choices
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect()
}

fn asked(more: &Value) -> Value {
    let mut fields =
        json!({"prompt": PROMPT, "max_tokens": 12, "temperature": 1, "seed": 40, "ignore_eos": true});
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    fields
}

#[tokio::test]
async fn each_answer_is_the_one_that_its_seed_gives_alone() {
    let worker = Running::start();
    let client = &worker.client;
    let together = complete(client, asked(&json!({"n": 4}))).await;
    let read = client.metric("vllm:prompt_tokens_total").await;
    // Four places, so the prompt was read once and copied.
    assert_eq!(together["usage"]["prompt_tokens"].as_f64(), Some(read));
    assert_eq!(together["usage"]["completion_tokens"], 4 * 12);
    for (number, text) in texts(&together).iter().enumerate() {
        let alone = complete(client, asked(&json!({"seed": 40 + number}))).await;
        assert_eq!(texts(&alone), [*text]);
    }
}

#[tokio::test]
async fn there_may_be_more_answers_than_places() {
    let worker = Running::start();
    let answer = complete(&worker.client, asked(&json!({"n": 7}))).await;
    assert_eq!(texts(&answer).len(), 7);
    let alone = complete(&worker.client, asked(&json!({"seed": 46}))).await;
    assert_eq!(texts(&answer)[6], texts(&alone)[0]);
    // Who got a place later read the prompt again, which is not the caller's to pay.
    assert_eq!(answer["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"]);
    assert_eq!(worker.client.metric("vllm:num_requests_running").await, 0.0);
    assert_eq!(worker.client.metric("vllm:num_requests_waiting").await, 0.0);
}

#[tokio::test]
async fn several_prompts_are_answered_in_their_order() {
    let worker = Running::start();
    let client = &worker.client;
    let prompts = ["The capital of France is", "The capital of Italy is"];
    let fields = |prompt: Value| json!({"prompt": prompt, "max_tokens": 5, "temperature": 0});
    let together = complete(client, fields(json!(prompts))).await;
    let mut tokens = Vec::new();
    for (prompt, text) in prompts.iter().zip(texts(&together)) {
        let alone = complete(client, fields(json!(prompt))).await;
        assert_eq!(texts(&alone), [text]);
        let (_, counted) = client.post("/tokenize", &json!({"prompt": prompt})).await;
        tokens.push(counted["tokens"].clone());
    }
    assert_eq!(
        together["usage"]["prompt_tokens"],
        tokens[0].as_array().unwrap().len() + tokens[1].as_array().unwrap().len()
    );
    let by_number = complete(client, fields(json!(tokens))).await;
    assert_eq!(texts(&by_number), texts(&together));
    let one = complete(client, fields(tokens[1].clone())).await;
    assert_eq!(texts(&one), [texts(&together)[1]]);
}

#[tokio::test]
async fn a_stream_of_several_answers_says_the_same() {
    let worker = Running::start();
    let client = &worker.client;
    let whole = complete(client, asked(&json!({"n": 3}))).await;
    let more = json!({"n": 3, "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let chunks = client
        .stream("/v1/completions", None, asked(&more))
        .await
        .chunks()
        .await;
    let mut streamed = vec![String::new(); 3];
    let mut reasons = vec![None; 3];
    for choice in chunks.iter().flat_map(|chunk| &chunk.choices) {
        streamed[choice.index as usize].push_str(choice.added_text());
        reasons[choice.index as usize].clone_from(&choice.finish_reason);
    }
    assert_eq!(streamed, texts(&whole));
    assert_eq!(reasons, vec![Some("length".to_owned()); 3]);
    let usage = chunks.last().unwrap().usage.unwrap();
    assert_eq!(serde_json::to_value(usage).unwrap(), whole["usage"]);
    let mut counted: Vec<u64> = chunks
        .iter()
        .map(|chunk| chunk.usage.unwrap().completion_tokens)
        .collect();
    counted.dedup();
    assert_eq!(counted, (1..=36).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_chat_of_several_answers_begins_each_with_its_role() {
    let worker = Running::start();
    let fields =
        json!({"messages": [{"role": "user", "content": "Hi"}], "n": 2, "max_tokens": 4, "temperature": 0});
    let chunks = worker
        .client
        .stream("/v1/chat/completions", None, fields)
        .await
        .chunks()
        .await;
    for number in 0..2 {
        let mut own = chunks
            .iter()
            .flat_map(|chunk| &chunk.choices)
            .filter(|choice| choice.index == number);
        assert_eq!(
            own.next().unwrap().delta.as_ref().unwrap().role.as_deref(),
            Some("assistant")
        );
        assert!(own.all(|choice| choice.delta.as_ref().unwrap().role.is_none()));
    }
}

#[tokio::test]
async fn a_cancel_ends_all_answers_and_counts_them() {
    let worker = Running::start();
    let client = &worker.client;
    let more = json!({"n": 6, "max_tokens": 200, "stream_options": {"continuous_usage_stats": true}});
    let mut stream = client.stream("/v1/completions", Some("many"), asked(&more)).await;
    for _ in 0..9 {
        stream.next_chunk().await;
    }
    let usage = client.cancel("many").await.unwrap();
    assert_eq!(
        client.metric("vllm:generation_tokens_total").await,
        usage.completion_tokens as f64
    );
    assert_eq!(
        client.metric("llm_engine_worker:requests_cancelled_total").await,
        1.0
    );
    assert_eq!(client.metric("vllm:kv_cache_usage_perc").await, 0.0);
    assert_eq!(stream.chunks().await.last().unwrap().usage, Some(usage));
}
