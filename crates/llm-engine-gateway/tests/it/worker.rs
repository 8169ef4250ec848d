//! What the gateway asks of a model worker beside answers: exact counts, and to stop.

use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{AnswerStream, Failure, Unit};
use llm_engine_wire::openai::{Kind, Request};
use scripted_upstream::{EventStream, Exchange, freeze};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{
    Spent, arrived, at_once, complete, counted, drain, failed, next_text, per_minute, policy, request,
    settle, spent, stream_of, streaming,
};
use crate::worker_harness::WorkerWorld;

fn tokens(count: u64) -> Value {
    json!({ "count": count, "max_model_len": 2048, "tokens": [] })
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> Value {
    json!({ "usage": {
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": 0,
    } })
}

/// Begins a stream whose prompt is counted as 6 tokens, and of which one token has come.
async fn begin(worker: &mut WorkerWorld) -> (AnswerStream, EventStream) {
    let request = streaming();
    let world = &mut worker.world;
    let mut answer = pin!(complete(&world.gateway, &request));
    arrived(answer.as_mut(), &mut world.upstream)
        .await
        .answer(200, &[], tokens(6));
    let stream = arrived(answer.as_mut(), &mut world.upstream).await.stream();
    stream.event(&counted("a", 6, 1));
    let mut answer = stream_of(answer.await);
    assert_eq!(next_text(&mut answer).await, "a");
    (answer, stream)
}

/// Asks for the request to be stopped.
async fn asked_to_cancel(worker: &mut WorkerWorld) -> Exchange {
    let exchange = worker.asked("/cancel").await;
    assert_eq!(exchange.body, json!({ "request_id": "r-1" }));
    exchange
}

const STILL_RUNNING: Spent = Spent {
    running: 1,
    ..spent(1, 6, 20)
};

#[tokio::test]
async fn a_prompt_is_counted_before_it_is_admitted_and_the_stream_is_asked_for_with_its_usage() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let request = streaming();
    let mut answer = pin!(complete(&worker.world.gateway, &request));
    let question = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    assert_eq!(
        (question.path.as_str(), &question.body["prompt"]),
        ("/tokenize", &json!("123456789"))
    );
    question.answer(200, &[], tokens(6));
    let sent = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    assert_eq!(worker.world.spent(), STILL_RUNNING);
    assert_eq!(sent.path, "/v1/completions");
    assert_eq!(sent.headers["x-request-id"], "r-1");
    assert_eq!(
        sent.body["stream_options"],
        json!({ "include_usage": true, "continuous_usage_stats": true })
    );
}

#[tokio::test]
async fn a_prompt_is_not_counted_where_no_policy_asks_for_it() {
    let _frozen = freeze();
    let output_alone = vec![policy("p", [per_minute(Unit::OutputTokens, 1000)])];
    let mut worker = WorkerWorld::ready(Some(output_alone)).await;
    let request = streaming();
    let answer = pin!(complete(&worker.world.gateway, &request));
    assert_eq!(
        arrived(answer, &mut worker.world.upstream).await.path,
        "/v1/completions"
    );
}

#[tokio::test]
async fn a_chat_that_names_no_maximum_gets_the_default_or_what_fits_behind_its_prompt() {
    let _frozen = freeze();
    let fields = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let chat = Request::from_fields(Kind::Chat, fields.as_object().unwrap().clone()).unwrap();
    for (context, expected) in [(2048, 20), (30, 20), (15, 5), (11, 1), (10, 1), (9, 1)] {
        // Also where no policy counts prompts.
        let mut worker = WorkerWorld::ready(Some(Vec::new())).await;
        let mut answer = pin!(complete(&worker.world.gateway, &chat));
        let question = arrived(answer.as_mut(), &mut worker.world.upstream).await;
        assert_eq!(question.body["messages"], fields["messages"]);
        question.answer(200, &[], json!({ "count": 10, "max_model_len": context }));
        let sent = arrived(answer.as_mut(), &mut worker.world.upstream).await;
        assert_eq!(sent.body["max_tokens"], expected, "a context of {context}");
    }
}

#[tokio::test]
async fn a_prompt_that_can_not_be_counted_is_estimated() {
    let _frozen = freeze();
    for answer_to_count in [
        (500, json!({})),
        (404, json!({})),
        (200, json!({ "count": "x" })),
        (200, json!([])),
    ] {
        let mut worker = WorkerWorld::ready(None).await;
        let request = streaming();
        let mut answer = pin!(complete(&worker.world.gateway, &request));
        let question = arrived(answer.as_mut(), &mut worker.world.upstream).await;
        question.answer(answer_to_count.0, &[], answer_to_count.1);
        assert_eq!(
            arrived(answer, &mut worker.world.upstream).await.path,
            "/v1/completions"
        );
        assert_eq!(worker.world.spent().input_tokens, 3);
    }
    let mut worker = WorkerWorld::ready(None).await;
    let request = streaming();
    let mut answer = pin!(complete(&worker.world.gateway, &request));
    let _unanswered = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    advance(Duration::from_millis(2001)).await;
    assert_eq!(
        arrived(answer, &mut worker.world.upstream).await.path,
        "/v1/completions"
    );
    assert_eq!(worker.world.spent().input_tokens, 3);
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_stopped_first_and_charged_what_the_worker_says() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let (answer, stream) = begin(&mut worker).await;
    drop(answer);
    let cancel = asked_to_cancel(&mut worker).await;
    settle().await;
    assert_eq!(worker.world.spent(), STILL_RUNNING, "until it has stopped");
    assert_eq!(
        worker.world.route().running(),
        1,
        "the place is not free until it has stopped"
    );
    cancel.answer(200, &[], usage(6, 4));
    settle().await;
    assert_eq!(worker.world.spent(), spent(1, 6, 4));
    assert_eq!(worker.world.route().running(), 0);
    stream.hung_up().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_before_its_first_token_is_stopped_too() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let request = streaming();
    {
        let mut answer = pin!(complete(&worker.world.gateway, &request));
        let question = arrived(answer.as_mut(), &mut worker.world.upstream).await;
        question.answer(200, &[], tokens(6));
        arrived(answer, &mut worker.world.upstream).await;
    }
    asked_to_cancel(&mut worker).await.answer(200, &[], usage(6, 2));
    settle().await;
    assert_eq!(worker.world.spent(), spent(1, 6, 2));
}

#[tokio::test]
async fn a_worker_that_can_not_say_what_was_used_leaves_what_was_counted() {
    let _frozen = freeze();
    for (status, body) in [
        (404, json!({})),
        (500, json!({})),
        (200, json!({ "usage": null })),
    ] {
        let mut worker = WorkerWorld::ready(None).await;
        let (answer, _stream) = begin(&mut worker).await;
        drop(answer);
        asked_to_cancel(&mut worker).await.answer(status, &[], body);
        settle().await;
        assert_eq!(worker.world.spent(), spent(1, 6, 1));
        assert_eq!(worker.world.route().running(), 0);
    }
}

#[tokio::test]
async fn a_worker_that_does_not_stop_is_waited_for_half_a_minute() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let (answer, _stream) = begin(&mut worker).await;
    drop(answer);
    let _unanswered = asked_to_cancel(&mut worker).await;
    advance(Duration::from_millis(29_999)).await;
    settle().await;
    assert_eq!(worker.world.route().running(), 1);
    advance(Duration::from_millis(2)).await;
    settle().await;
    assert_eq!(worker.world.route().running(), 0);
    assert_eq!(worker.world.spent(), spent(1, 6, 1));
}

#[tokio::test]
async fn a_request_that_is_given_up_or_cut_off_is_stopped_and_waited_for() {
    let _frozen = freeze();
    for cut_off in [false, true] {
        let mut worker = WorkerWorld::ready(None).await;
        let (mut answer, _stream) = begin(&mut worker).await;
        worker.world.gateway.drain();
        if cut_off {
            worker.world.gateway.cut_off();
        } else {
            advance(Duration::from_millis(60_001)).await;
        }
        let failure = answer.next().await.unwrap().unwrap_err();
        assert_eq!(failure == Failure::CutOff, cut_off, "{failure:?}");
        let cancel = asked_to_cancel(&mut worker).await;
        assert!(at_once(pin!(worker.world.gateway.drained())).await.is_none());
        cancel.answer(200, &[], usage(6, 9));
        assert!(at_once(pin!(worker.world.gateway.drained())).await.is_some());
        assert_eq!(worker.world.spent(), spent(1, 6, 9));
    }
}

#[tokio::test]
async fn a_request_that_has_ended_by_itself_is_not_stopped() {
    let _frozen = freeze();
    for whole in [true, false] {
        let mut worker = WorkerWorld::ready(None).await;
        let (answer, stream) = begin(&mut worker).await;
        if whole {
            stream.finish("stop");
            stream.done();
            drain(answer).await.unwrap();
        } else {
            stream.cut();
            drain(answer).await.unwrap_err();
        }
        settle().await;
        assert!(worker.world.upstream.arrived().is_none());
        assert_eq!(worker.world.spent(), spent(1, 6, 1));
        assert_eq!(worker.world.route().running(), 0);
    }
}

#[tokio::test]
async fn an_answer_dropped_outside_of_a_runtime_is_charged_what_was_counted() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let (answer, _stream) = begin(&mut worker).await;
    std::thread::spawn(move || drop(answer)).join().unwrap();
    assert_eq!(worker.world.spent(), spent(1, 6, 1));
    assert_eq!(worker.world.route().running(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_put_together_from_a_stream() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let request = request(json!({}));
    let mut answer = pin!(complete(&worker.world.gateway, &request));
    arrived(answer.as_mut(), &mut worker.world.upstream)
        .await
        .answer(200, &[], tokens(6));
    let sent = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    assert_eq!(sent.body["stream"], true);
    let stream = sent.stream();
    stream.event(&counted("a", 6, 1));
    stream.event(&counted("bc", 6, 3));
    stream.finish("length");
    stream.done();
    let answer = stream_of(answer.await).collect().await.unwrap();
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "id": "c", "object": "text_completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "text": "abc", "logprobs": null, "finish_reason": "length" }],
            "usage": { "prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9 },
        })
    );
    assert_eq!(worker.world.spent(), spent(1, 6, 3));
}

#[tokio::test]
async fn a_worker_that_rejects_the_request_is_told_in_its_words() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let request = streaming();
    let mut answer = pin!(complete(&worker.world.gateway, &request));
    arrived(answer.as_mut(), &mut worker.world.upstream)
        .await
        .answer(200, &[], tokens(6));
    let sent = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    sent.answer(
        400,
        &[],
        json!({ "error": { "message": "no tools here", "code": "unsupported" } }),
    );
    assert_eq!(failed(answer.await).to_string(), "no tools here");
    settle().await;
    assert!(
        worker.world.upstream.arrived().is_none(),
        "nothing is to be stopped"
    );
    assert_eq!(worker.world.spent(), spent(1, 0, 0));
}
