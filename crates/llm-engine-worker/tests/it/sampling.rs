//! How tokens are picked, as far as it shows in the answers.

use serde_json::{Value, json};

use crate::client::text;
use crate::running::{MODEL, Running};

fn fields(more: &Value) -> Value {
    let mut fields = json!({"model": MODEL, "prompt": "My favourite colour is", "max_tokens": 16, "temperature": 1, "seed": 5});
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    fields
}

async fn answer(worker: &Running, more: &Value) -> Value {
    let (status, answer) = worker.client.post("/v1/completions", &fields(more)).await;
    assert_eq!(status, hyper::StatusCode::OK, "{answer}");
    answer["choices"][0].clone()
}

#[tokio::test]
async fn a_seed_gives_the_same_text_whatever_else_runs() {
    let worker = Running::start();
    let alone = answer(&worker, &json!({"ignore_eos": true})).await;
    let endless = json!({"prompt": "Once", "max_tokens": 200, "ignore_eos": true});
    let mut others = Vec::new();
    for name in ["a", "b", "c"] {
        let mut stream = worker
            .client
            .stream("/v1/completions", Some(name), endless.clone())
            .await;
        stream.next_chunk().await;
        others.push(stream);
    }
    assert_eq!(
        answer(&worker, &json!({"ignore_eos": true})).await["text"],
        alone["text"]
    );
    for name in ["a", "b", "c"] {
        worker.client.cancel(name).await.unwrap();
    }
}

#[tokio::test]
async fn a_bias_decides_and_forbids() {
    let worker = Running::start();
    let (_, counted) = worker
        .client
        .post("/tokenize", &json!({"prompt": " zebra"}))
        .await;
    let zebra = counted["tokens"][0].to_string();
    let forced = answer(&worker, &json!({"logit_bias": {&zebra: 100}, "max_tokens": 2})).await;
    assert_eq!(
        forced["text"].as_str().unwrap(),
        " zebra zebra"
            .get(..forced["text"].as_str().unwrap().len())
            .unwrap()
    );
    let likeliest = answer(
        &worker,
        &json!({"temperature": 0, "max_tokens": 1, "logprobs": 1}),
    )
    .await;
    let (_, counted) = worker
        .client
        .post("/tokenize", &json!({"prompt": likeliest["text"]}))
        .await;
    let bias = json!({counted["tokens"][0].to_string(): -100});
    let other = answer(
        &worker,
        &json!({"temperature": 0, "max_tokens": 1, "logit_bias": bias}),
    )
    .await;
    assert_ne!(other["text"], likeliest["text"]);
}

#[tokio::test]
async fn what_is_only_as_likely_as_the_likeliest_is_the_likeliest() {
    let worker = Running::start();
    let greedy = answer(&worker, &json!({"temperature": 0})).await;
    assert_eq!(
        answer(&worker, &json!({"min_p": 1.0})).await["text"],
        greedy["text"]
    );
    assert_eq!(
        answer(&worker, &json!({"top_k": 1})).await["text"],
        greedy["text"]
    );
    assert_eq!(
        answer(&worker, &json!({"top_p": 1e-9})).await["text"],
        greedy["text"]
    );
}

#[tokio::test]
async fn an_answer_ends_at_a_stop_token() {
    const STORY: &str = "Once upon a time there was a king who";
    let worker = Running::start();
    let plain = answer(
        &worker,
        &json!({"prompt": STORY, "temperature": 0, "logprobs": 0}),
    )
    .await;
    let names = plain["logprobs"]["tokens"].as_array().unwrap();
    let (_, counted) = worker
        .client
        .post("/tokenize", &json!({"prompt": names[3]}))
        .await;
    let stopped = answer(
        &worker,
        &json!({"prompt": STORY, "temperature": 0, "stop_token_ids": counted["tokens"]}),
    )
    .await;
    let before: String = names
        .iter()
        .map(|name| name.as_str().unwrap())
        .take_while(|name| *name != names[3])
        .collect();
    assert_eq!(stopped["text"], before);
    assert_eq!(stopped["finish_reason"], "stop");
}

#[tokio::test]
async fn special_tokens_are_written_where_they_are_wanted() {
    let worker = Running::start();
    let ask = |skip: bool| {
        let fields =
            json!({"temperature": 0, "max_tokens": 60, "ignore_eos": true, "skip_special_tokens": skip});
        worker.client.ask(fields, "What is 2+2?")
    };
    let with = ask(false).await;
    assert!(
        with["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .contains("<|im_end|>"),
        "{with}"
    );
    let without = ask(true).await;
    assert!(
        !without["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .contains("<|"),
        "{without}"
    );
}

#[tokio::test]
async fn a_stream_tells_the_same_likelihoods_token_by_token() {
    let worker = Running::start();
    let chat = json!({
        "messages": [{"role": "user", "content": "Say 🦀🦀"}], "max_tokens": 12, "temperature": 0, "logprobs": true,
        "top_logprobs": 3, "ignore_eos": true, "logit_bias": {},
    });
    let mut body = chat.clone();
    body["model"] = json!(MODEL);
    let (_, whole) = worker.client.post("/v1/chat/completions", &body).await;
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 12);
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(
            (&top[0]["token"], &top[0]["bytes"]),
            (&entry["token"], &entry["bytes"])
        );
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
    }
    let chunks = worker
        .client
        .stream("/v1/chat/completions", None, chat)
        .await
        .chunks()
        .await;
    let streamed: Vec<Value> = chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .filter_map(|choice| choice.logprobs.as_ref())
        .map(|logprobs| {
            let content = logprobs["content"].as_array().unwrap();
            assert_eq!(content.len(), 1);
            content[0].clone()
        })
        .collect();
    assert_eq!(&streamed, content);
    assert_eq!(
        text(&chunks),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
}
