//! What a stream is charged: the deployment's own numbers where it gives them, else what was counted.

use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{RefusalCode, Unit};
use llm_engine_wire::openai::Usage;
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    LIMIT, Spent, World, arrived, complete_as, counted, drain, next_text, per_minute, policy, refused,
    request, spent, streaming, text,
};

#[tokio::test]
async fn what_may_be_used_is_reserved_while_the_request_runs() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, _stream) = world.begin().await;
    assert_eq!(
        world.spent(),
        Spent {
            running: 1,
            ..spent(1, 3, 20)
        }
    );
    drop(answer);
    assert_eq!(world.spent(), spent(1, 3, 1));
}

#[tokio::test]
async fn without_a_usage_chunks_with_text_are_counted_and_the_prompt_is_estimated() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    stream.text("");
    stream.text("b");
    stream.text(" c d e");
    stream.finish("stop");
    stream.done();
    let events = drain(answer).await.unwrap();
    assert_eq!(text(&events), "ab c d e");
    let usages: Vec<Usage> = events.iter().map(|event| event.usage).collect();
    assert_eq!(usages, [1, 1, 2, 3, 3].map(|generated| Usage::new(3, generated)));
    assert_eq!(world.spent(), spent(1, 3, 3));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn a_usage_in_the_last_chunk_stands_over_what_was_counted() {
    let _frozen = freeze();
    for (prompt_tokens, completion_tokens) in [(7, 12), (1, 1), (0, 0)] {
        let mut world = World::start().await;
        let (answer, stream) = world.begin().await;
        stream.text("b");
        stream.text("c");
        stream.finish("stop");
        stream.usage(prompt_tokens, completion_tokens);
        stream.done();
        let events = drain(answer).await.unwrap();
        assert_eq!(
            events.last().unwrap().usage,
            Usage::new(prompt_tokens, completion_tokens)
        );
        assert_eq!(world.spent(), spent(1, prompt_tokens, completion_tokens));
    }
}

#[tokio::test]
async fn a_usage_in_every_chunk_is_followed_also_if_the_stream_is_dropped() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world
        .begin_with(&streaming(), |stream| stream.event(&counted("ab", 9, 2)))
        .await;
    stream.event(&counted("cde", 9, 5));
    assert_eq!(next_text(&mut answer).await, "ab");
    assert_eq!(answer.usage(), Usage::new(9, 2));
    assert_eq!(next_text(&mut answer).await, "cde");
    assert_eq!(answer.usage(), Usage::new(9, 5));
    drop(answer);
    assert_eq!(world.spent(), spent(1, 9, 5));
}

#[tokio::test]
async fn a_usage_of_null_in_the_chunks_is_none() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let chunk = |text: &str| json!({ "choices": [{ "index": 0, "text": text }], "usage": null });
    let (answer, stream) = world
        .begin_with(&streaming(), |stream| stream.event(&chunk("a")))
        .await;
    stream.event(&chunk("b"));
    stream.finish("stop");
    stream.done();
    drain(answer).await.unwrap();
    assert_eq!(world.spent(), spent(1, 3, 2));
}

#[tokio::test]
async fn a_usage_before_the_first_text_does_not_end_the_counting() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world
        .begin_with(&streaming(), |stream| stream.event(&counted("", 7, 0)))
        .await;
    for word in ["a", "b", "c"] {
        stream.text(word);
    }
    for expected in ["", "a", "b", "c"] {
        assert_eq!(next_text(&mut answer).await, expected);
    }
    drop(answer);
    assert_eq!(world.spent(), spent(1, 7, 3));
}

#[tokio::test]
async fn what_was_used_beyond_the_reservation_is_charged() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.usage(50, 70);
    stream.done();
    drain(answer).await.unwrap();
    assert_eq!(world.spent(), spent(1, 50, 70));
}

#[tokio::test]
async fn an_overrun_is_a_debt_that_the_next_caller_waits_out() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        setup.policies = vec![policy("p", [per_minute(Unit::OutputTokens, 60)])];
    })
    .await;
    let (answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.usage(3, 100);
    stream.done();
    drain(answer).await.unwrap();

    // 100 of 60 are used, one refills each second, and the next asks for 20.
    let refusal = refused(world.complete_as("bob", &streaming()).await);
    assert_eq!(refusal.code, RefusalCode::RateLimited);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(60)));
    advance(Duration::from_secs(60) - Duration::from_nanos(1)).await;
    let refusal = refused(world.complete_as("bob", &streaming()).await);
    assert_eq!(refusal.retry_after, Some(Duration::from_nanos(1)));
    advance(Duration::from_nanos(1)).await;
    let request = streaming();
    let answer = pin!(complete_as(&world.gateway, "bob", &request, "r-1"));
    arrived(answer, &mut world.upstream).await;
}

#[tokio::test]
async fn a_usage_beyond_all_reason_is_a_debt_and_no_crash() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    let usage = json!({ "prompt_tokens": u64::MAX, "completion_tokens": u64::MAX, "total_tokens": 5 });
    stream.event(&json!({ "choices": [], "usage": usage }));
    stream.text("b");
    stream.finish("stop");
    stream.done();
    drain(answer).await.unwrap();
    assert_eq!(world.spent(), spent(1, LIMIT, LIMIT));
    assert_eq!(
        refused(world.complete(&streaming()).await).code,
        RefusalCode::RateLimited
    );
}

#[tokio::test]
async fn the_bound_is_sent_with_the_request_and_reserved_for_each_answer() {
    let _frozen = freeze();
    for (more, bound, reserved) in [
        (json!({ "stream": true, "max_tokens": 7 }), 7, 7),
        (json!({ "stream": true, "max_tokens": null }), 16, 16),
        (json!({ "stream": true, "max_tokens": 7, "n": 3 }), 7, 21),
        (
            json!({ "stream": true, "max_tokens": 7, "prompt": ["a", "b"] }),
            7,
            14,
        ),
    ] {
        let mut world = World::start().await;
        let request = request(more);
        assert_eq!(world.abandon(&request).await.body["max_tokens"], bound);
        let charged = world.spent().output_tokens;
        let (_answer, _stream) = world.begin_with(&request, |stream| stream.text("a")).await;
        assert_eq!(world.spent().output_tokens - charged, reserved);
    }
}

#[tokio::test]
async fn what_comes_after_the_end_of_a_stream_is_not_read() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world
        .begin_with(&streaming(), |stream| {
            let event = |text: &str| format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\n");
            stream.raw(&format!("{}data: [DONE]\n\n{}", event("a"), event("b")));
        })
        .await;
    drop(stream);
    assert_eq!(text(&drain(answer).await.unwrap()), "a");
    assert_eq!(world.spent(), spent(1, 3, 1));
}
