//! Shutting down: what runs ends well, or is cut off; what is new is refused.

use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{Failure, RefusalCode};
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, arrived, assert_waits, at_once, complete, drain, failed, next_text, refused, request, settle,
    spent, stream_of, streaming, text,
};

#[tokio::test]
async fn new_requests_are_refused_before_anything_is_reserved() {
    let _frozen = freeze();
    let world = World::start().await;
    assert!(!world.gateway.is_draining());
    world.gateway.drain();
    assert!(world.gateway.is_draining());
    let refusal = refused(world.complete(&streaming()).await);
    assert_eq!(refusal.code, RefusalCode::Draining);
    assert_eq!((refusal.code.status(), refusal.code.as_str()), (503, "draining"));
    assert!(refusal.retry_after.unwrap() > Duration::ZERO && !refusal.exact);
    assert_eq!(world.spent(), spent(0, 0, 0));
}

#[tokio::test]
async fn with_nothing_running_it_is_drained_at_once_and_before_drain_it_is_not() {
    let _frozen = freeze();
    let world = World::start().await;
    let mut drained = pin!(world.gateway.drained());
    assert_waits(drained.as_mut()).await;
    world.gateway.drain();
    assert!(at_once(drained).await.is_some());
    world.gateway.drain();
    assert!(at_once(pin!(world.gateway.drained())).await.is_some());
}

#[tokio::test]
async fn what_runs_goes_on_to_its_end_and_then_it_is_drained() {
    let _frozen = freeze();
    let mut world = World::with(|setup| setup.models[0].concurrency = std::num::NonZeroU32::new(3)).await;
    let (mut first, stream) = world.begin().await;
    let (second, _second) = world.begin().await;
    world.gateway.drain();
    let mut drained = pin!(world.gateway.drained());
    assert!(at_once(drained.as_mut()).await.is_none());
    stream.text("b");
    assert_eq!(next_text(&mut first).await, "a");
    assert_eq!(next_text(&mut first).await, "b");
    stream.finish("stop");
    stream.done();
    drain(first).await.unwrap();
    assert!(at_once(drained.as_mut()).await.is_none(), "one is left");
    drop(second);
    assert!(at_once(drained).await.is_some());
    assert_eq!(world.spent(), spent(2, 6, 3));
}

#[tokio::test]
async fn a_request_that_has_no_answer_yet_is_waited_for() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let request = request(json!({}));
    let mut answer = pin!(complete(&world.gateway, &request));
    let exchange = arrived(answer.as_mut(), &mut world.upstream).await;
    world.gateway.drain();
    let mut drained = pin!(world.gateway.drained());
    assert!(at_once(drained.as_mut()).await.is_none());
    exchange.answer(200, &[], json!({ "choices": [] }));
    answer.await.unwrap();
    assert!(at_once(drained).await.is_some());
}

#[tokio::test]
async fn a_request_that_waits_for_a_place_is_refused_or_waited_for() {
    let _frozen = freeze();
    let mut world = World::with(|setup| setup.models[0].queue_length = 1).await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let mut waiting = Box::pin(complete(&world.gateway, &request));
    assert_waits(waiting.as_mut()).await;
    world.gateway.drain();
    if let Some(refusal) = at_once(waiting.as_mut()).await {
        assert_eq!(refused(refusal).code, RefusalCode::Draining);
        return;
    }
    let mut drained = pin!(world.gateway.drained());
    assert!(at_once(drained.as_mut()).await.is_none());
    drop(answer);
    // Now the place is the waiting request's, which may not have noticed yet.
    assert!(
        at_once(drained.as_mut()).await.is_none(),
        "a request is still to run"
    );
    let exchange = arrived(waiting.as_mut(), &mut world.upstream).await;
    assert!(at_once(drained.as_mut()).await.is_none());
    exchange.answer_words(1, &["a"]);
    crate::harness::drain(stream_of(waiting.await)).await.unwrap();
    assert!(at_once(drained).await.is_some());
}

#[tokio::test]
async fn a_stream_that_is_cut_off_ends_with_a_failure_and_pays_for_what_came() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    world.gateway.drain();
    assert_eq!(next_text(&mut answer).await, "a");
    {
        let mut next = pin!(answer.next());
        assert_waits(next.as_mut()).await;
        world.gateway.cut_off();
        let failure = at_once(next).await.unwrap().unwrap().unwrap_err();
        assert_eq!(failure, Failure::CutOff);
        assert_eq!((failure.code(), failure.status()), ("draining", 503));
    }
    assert!(answer.next().await.is_none());
    assert_eq!(world.spent(), spent(1, 3, 1));
    drop(answer);
    stream.hung_up().await;
    assert!(at_once(pin!(world.gateway.drained())).await.is_some());
}

#[tokio::test]
async fn a_request_without_a_first_token_is_cut_off_too_streamed_or_not() {
    let _frozen = freeze();
    for request in [streaming(), request(json!({}))] {
        for with_head in [false, true] {
            let mut world = World::start().await;
            let mut answer = pin!(complete(&world.gateway, &request));
            let exchange = arrived(answer.as_mut(), &mut world.upstream).await;
            let mut stream = None;
            let mut unanswered = None;
            if with_head {
                stream.insert(exchange.stream()).raw(": ping\n\n");
                assert!(at_once(answer.as_mut()).await.is_none());
            } else {
                unanswered = Some(exchange);
            }
            world.gateway.drain();
            world.gateway.cut_off();
            assert_eq!(failed(at_once(answer).await.unwrap()), Failure::CutOff);
            assert_eq!(world.spent(), spent(1, 0, 0));
            assert!(at_once(pin!(world.gateway.drained())).await.is_some());
            drop((stream, unanswered));
        }
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_place_is_not_sent_after_all_was_cut_off() {
    let _frozen = freeze();
    let mut world = World::with(|setup| setup.models[0].queue_length = 1).await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let mut waiting = pin!(complete(&world.gateway, &request));
    assert_waits(waiting.as_mut()).await;
    world.gateway.drain();
    world.gateway.cut_off();
    drop(answer);
    let ended = at_once(waiting).await;
    assert!(ended.is_some_and(|answer| answer.is_err()), "it ends");
    settle().await;
    assert!(world.upstream.arrived().is_none(), "and nobody works for it");
    assert_eq!(world.spent().output_tokens, 1);
}

#[tokio::test]
async fn what_had_ended_before_the_cut_is_not_touched_by_it() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.done();
    let events = drain(answer).await.unwrap();
    assert_eq!(text(&events), "a");
    world.gateway.drain();
    world.gateway.cut_off();
    assert_eq!(world.spent(), spent(1, 3, 1));
    advance(Duration::from_secs(30)).await;
    assert!(at_once(pin!(world.gateway.drained())).await.is_some());
}
