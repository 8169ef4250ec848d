//! What is answered, and how it is counted.

use hyper::StatusCode;
use llm_engine_wire::openai::Chunk;
use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::running::{MODEL, Running};

const QUESTION: &str = "Why is the sky blue?";

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

fn finish_reason(chunks: &[Chunk]) -> Option<&str> {
    chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .find_map(|choice| choice.finish_reason.as_deref())
}

async fn count(client: &Client, body: Value) -> u64 {
    let (status, answer) = client.post("/tokenize", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["count"], answer["tokens"].as_array().unwrap().len());
    answer["count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_chat_is_answered_to_the_point() {
    let worker = Running::start();
    let answer = worker
        .client
        .ask(json!({"temperature": 0, "max_tokens": 80}), QUESTION)
        .await;
    let lower = content(&answer).to_lowercase();
    assert!(
        ["sky", "blue", "light"].iter().any(|word| lower.contains(word)),
        "{lower}"
    );
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert_eq!(answer["model"], MODEL);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text() {
    let worker = Running::start();
    let asked = |seed: u64| {
        worker
            .client
            .ask(json!({"seed": seed, "max_tokens": 24}), "Tell me a story.")
    };
    let first = asked(3).await;
    assert_eq!(content(&first), content(&asked(3).await));
    assert_ne!(content(&first), content(&asked(4).await));
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_whole_answer() {
    let worker = Running::start();
    let fields = json!({"temperature": 0, "max_tokens": 30});
    let whole = worker.client.ask(fields.clone(), QUESTION).await;
    let mut fields = fields;
    fields["messages"] = json!([{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]);
    fields["stream_options"] = json!({"include_usage": true});
    let chunks = worker
        .client
        .stream("/v1/chat/completions", None, fields)
        .await
        .chunks()
        .await;
    assert_eq!(text(&chunks), content(&whole));
    let delta = chunks[0].choices[0].delta.as_ref().unwrap();
    assert_eq!(delta.role.as_deref(), Some("assistant"));
    assert_eq!(finish_reason(&chunks), Some("length"));
    let (last, others) = chunks.split_last().unwrap();
    assert!(last.choices.is_empty());
    assert_eq!(serde_json::to_value(last.usage.unwrap()).unwrap(), whole["usage"]);
    assert!(
        others
            .iter()
            .all(|chunk| chunk.usage.is_none() && chunk.id == last.id)
    );
}

#[tokio::test]
async fn usage_is_what_tokenize_counts_and_what_was_generated() {
    let worker = Running::start();
    let client = &worker.client;
    let answer = client
        .ask(json!({"max_tokens": 17, "ignore_eos": true}), QUESTION)
        .await;
    let messages = json!([{"role": "user", "content": QUESTION}]);
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        count(client, json!({"messages": messages})).await
    );
    assert_eq!(answer["usage"]["completion_tokens"], 17);
    let body =
        json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0});
    let (_, answer) = client.post("/v1/completions", &body).await;
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        count(client, json!({"prompt": body["prompt"]})).await
    );
    assert!(
        answer["choices"][0]["text"].as_str().unwrap().contains("Paris"),
        "{answer}"
    );
    assert_eq!(client.metric("vllm:generation_tokens_total").await, 22.0);
    let prompts = answer["usage"]["prompt_tokens"].as_f64().unwrap()
        + count(client, json!({"messages": messages})).await as f64;
    assert_eq!(client.metric("vllm:prompt_tokens_total").await, prompts);
}

#[tokio::test]
async fn continuous_usage_counts_every_decode_step() {
    let worker = Running::start();
    let fields = json!({
        // Characters of several tokens each, so that text is held back.
        "prompt": "🦀🦀🦀🦀🦀🦀🦀🦀", "temperature": 0, "max_tokens": 20, "ignore_eos": true,
        "stream_options": {"continuous_usage_stats": true},
    });
    let chunks = worker
        .client
        .stream("/v1/completions", None, fields)
        .await
        .chunks()
        .await;
    let counted: Vec<u64> = chunks
        .iter()
        .map(|chunk| chunk.usage.unwrap().completion_tokens)
        .collect();
    assert_eq!(counted, (1..=20).collect::<Vec<u64>>());
    assert!(
        chunks
            .iter()
            .any(|chunk| chunk.choices[0].added_text().is_empty())
    );
    assert!(
        !text(&chunks).trim_end_matches('\u{FFFD}').contains('\u{FFFD}'),
        "{}",
        text(&chunks)
    );
}

#[tokio::test]
async fn an_answer_ends_at_a_stop_sequence() {
    let worker = Running::start();
    let ask = |fields: Value| worker.client.ask(fields, QUESTION);
    let plain = ask(json!({"temperature": 0, "max_tokens": 30})).await;
    let plain = content(&plain);
    // From the middle of a word to the middle of another, so that it lies across tokens.
    let stop: String = plain.chars().skip(10).take(9).collect();
    let before = &plain[..plain.find(&stop).unwrap()];
    let stopped = ask(json!({"temperature": 0, "max_tokens": 30, "stop": [stop, "never"]})).await;
    assert_eq!(content(&stopped), before);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let including = ask(json!({
        "temperature": 0, "max_tokens": 30, "stop": stop, "include_stop_str_in_output": true,
    }))
    .await;
    assert_eq!(content(&including), format!("{before}{stop}"));
    assert_eq!(including["usage"], stopped["usage"]);
}

#[tokio::test]
async fn the_end_of_the_answer_is_not_printed() {
    let worker = Running::start();
    let answer = worker
        .client
        .ask(json!({"temperature": 0, "max_tokens": 60}), "What is 2+2?")
        .await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(!content(&answer).contains("<|"), "{answer}");
}

#[tokio::test]
async fn concurrent_streams_all_finish() {
    let worker = Running::start();
    let lengths = [40_u64, 8, 24, 60, 12, 30, 5];
    let asked = lengths.map(|length| {
        let client = worker.client.clone();
        async move {
            let fields = json!({
                "prompt": format!("Count to {length}: one, two,"), "max_tokens": length,
                "ignore_eos": true, "stream_options": {"include_usage": true},
            });
            client
                .stream("/v1/completions", None, fields)
                .await
                .chunks()
                .await
        }
    });
    for (chunks, length) in futures_util::future::join_all(asked).await.iter().zip(lengths) {
        assert_eq!(finish_reason(chunks), Some("length"));
        assert_eq!(chunks.last().unwrap().usage.unwrap().completion_tokens, length);
    }
    let generated = worker.client.metric("vllm:generation_tokens_total").await;
    assert_eq!(generated, lengths.iter().sum::<u64>() as f64);
    // Had they run one after the other, each token would have been a step of its own.
    assert!(worker.client.metric("llm_engine_worker:decode_steps_total").await < generated * 0.7);
    assert_eq!(worker.client.metric("vllm:kv_cache_usage_perc").await, 0.0);
}

#[tokio::test]
async fn a_long_prompt_is_read_in_pieces_and_remembered() {
    let worker = Running::start();
    let filler = "The sky is blue and the grass is green. ".repeat(18);
    let prompt = format!("The secret fruit is mango. {filler}The secret fruit is");
    let body =
        json!({"model": MODEL, "prompt": prompt, "max_tokens": 3, "temperature": 0, "ignore_eos": true});
    let (status, answer) = worker.client.post("/v1/completions", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        answer["choices"][0]["text"].as_str().unwrap().contains("mango"),
        "{answer}"
    );
    let pieces = answer["usage"]["prompt_tokens"].as_u64().unwrap().div_ceil(64);
    // The last piece gives the first token, two more steps the rest.
    let steps = worker.client.metric("llm_engine_worker:decode_steps_total").await;
    assert_eq!(steps, (pieces + 2) as f64);
}

#[tokio::test]
async fn an_empty_prompt_begins_with_the_models_own_token() {
    let worker = Running::start();
    let body = json!({"model": MODEL, "prompt": "", "max_tokens": 2});
    let (status, answer) = worker.client.post("/v1/completions", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["usage"]["prompt_tokens"], 1);
}
