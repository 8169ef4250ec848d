//! Deployments that speak LLM Engine's v1, and what deployments tell of themselves.

use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{AnswerBody, Dialect, Failure};
use llm_engine_wire::openai::{Kind, Request};
use scripted_upstream::{Upstream, freeze};
use serde_json::{Value, json};

use crate::harness::{
    World, arrived, at_once, complete, deployment, drain, failed, remote, request, spent, stream_of,
    streaming, text,
};

async fn v1_world() -> World {
    World::with(|setup| {
        let remote = remote(setup);
        remote.dialect = Dialect::LlmEngine;
        remote.model = "llama 7b".to_owned();
    })
    .await
}

#[tokio::test]
async fn a_server_of_v1_is_asked_in_its_words_and_answers_in_openai_s() {
    let _frozen = freeze();
    let mut world = v1_world().await;
    let request = request(json!({ "temperature": 0.5, "stop": ["x"] }));
    let mut answer = pin!(complete(&world.gateway, &request));
    let sent = arrived(answer.as_mut(), &mut world.upstream).await;
    assert_eq!(sent.path, "/v1/llm/completions-sync");
    assert_eq!(sent.query, "model_endpoint_name=llama%207b");
    assert_eq!(sent.body["prompt"], "123456789");
    assert_eq!(sent.body["max_new_tokens"], 20);
    assert_eq!(sent.body["temperature"], 0.5);
    assert_eq!(sent.body["stop_sequences"], json!(["x"]));
    let output =
        json!({ "text": "hello", "num_prompt_tokens": 4, "num_completion_tokens": 2, "tokens": null });
    sent.answer(200, &[], json!({ "request_id": "r", "output": output }));
    let AnswerBody::Whole(answer) = answer.await.unwrap() else {
        panic!("it is whole")
    };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "m");
    assert_eq!(answer["choices"][0]["text"], "hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(world.spent(), spent(1, 4, 2));
}

#[tokio::test]
async fn its_stream_is_one_of_chunks() {
    let _frozen = freeze();
    let mut world = v1_world().await;
    let request = streaming();
    let mut answer = pin!(complete(&world.gateway, &request));
    let sent = arrived(answer.as_mut(), &mut world.upstream).await;
    assert_eq!(sent.path, "/v1/llm/completions-stream");
    let stream = sent.stream();
    let frame = |text: &str, finished: bool, generated: u64| {
        let prompt = finished.then_some(4);
        json!({ "request_id": "r", "output": {
            "text": text, "finished": finished, "num_prompt_tokens": prompt, "num_completion_tokens": generated,
        } })
    };
    stream.event(&frame("hel", false, 1));
    stream.event(&frame("lo", true, 2));
    stream.done();
    let events = drain(stream_of(answer.await)).await.unwrap();
    assert_eq!(text(&events), "hello");
    assert_eq!(world.spent(), spent(1, 4, 2));
}

#[tokio::test]
async fn what_v1_has_no_words_for_goes_to_a_deployment_that_has_or_is_refused_with_the_reason() {
    let _frozen = freeze();
    let fields = json!({ "model": "m", "max_tokens": 20, "messages": [{ "role": "user", "content": "hi" }] });
    let chat = Request::from_fields(Kind::Chat, fields.as_object().unwrap().clone()).unwrap();
    let world = v1_world().await;
    let failure = failed(complete(&world.gateway, &chat).await);
    let Failure::Rejected { message, param, .. } = failure else {
        panic!("{failure:?}")
    };
    assert!(message.contains("v1 API"), "{message}");
    assert_eq!(param.as_deref(), Some("messages"));

    let mut other = Upstream::start().await;
    let url = other.url().to_owned();
    let world = World::with(|setup| {
        remote(setup).dialect = Dialect::LlmEngine;
        setup.models[0].deployments.push(deployment(&url));
    })
    .await;
    for _ in 0..3 {
        let mut answer = pin!(complete(&world.gateway, &chat));
        let sent = arrived(answer.as_mut(), &mut other).await;
        sent.answer_as_asked(3, &["x"]);
        answer.await.unwrap();
    }
}

/// How many of 30 requests at once are sent to a deployment that tells its metrics, or does not.
async fn sent_at_once(tells: bool) -> usize {
    let metrics = Upstream::answering(|exchange| {
        let text = "# HELP vllm:num_requests_waiting x\nvllm:num_requests_waiting_total 1000\n\
                    vllm:num_requests_waiting{engine=\"0\"} 30.0\nvllm:num_requests_waiting{engine=\"1\"} 10.0\n";
        exchange.answer_text(200, text);
    })
    .await;
    let mut world = World::with(|setup| {
        setup.policies.clear();
        setup.models[0].concurrency = None;
        setup.models[0].queue_length = 100;
        let remote = remote(setup);
        remote.is_adaptive = true;
        remote.metrics_url = tells.then(|| metrics.clone());
    })
    .await;
    let request = streaming();
    world.answer_after(Duration::from_millis(100), 60).await;
    let mut calls: Vec<_> = (0..30)
        .map(|_| Box::pin(complete(&world.gateway, &request)))
        .collect();
    for call in &mut calls {
        assert!(at_once(call.as_mut()).await.is_none());
    }
    world.route().running()
}

#[tokio::test]
async fn a_deployment_that_says_how_many_wait_in_it_gets_less() {
    let _frozen = freeze();
    assert_eq!(sent_at_once(false).await, 20);
    assert!(sent_at_once(true).await <= 4);
}
