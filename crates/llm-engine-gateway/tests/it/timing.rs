//! How long a deployment may take.

use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{Failure, Timeouts};
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, arrived, assert_waits, at_once, complete, drain, failed, next_text, remote, request, settle,
    setup, spent, streaming, text,
};
use crate::raw_upstream::RawUpstream;

const FIRST_TOKEN: Duration = Duration::from_secs(120);
const BETWEEN_EVENTS: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_deployment_that_does_not_answer_is_given_up_after_its_time_and_charged_the_request() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let request = streaming();
    {
        let mut answer = pin!(complete(&world.gateway, &request));
        let _exchange = arrived(answer.as_mut(), &mut world.upstream).await;
        advance(FIRST_TOKEN - MILLISECOND).await;
        assert_waits(answer.as_mut()).await;
        advance(2 * MILLISECOND).await;
        assert_eq!(failed(answer.await), Failure::TimedOut(FIRST_TOKEN));
    }
    assert_eq!(world.spent(), spent(1, 0, 0));
    world.assert_place_is_free().await;
}

/// The outcome if a deployment sends its head after so long, then every 10 s a comment, and never a token; it is asked
/// for at a second past the time for the first token.
async fn without_a_token(head_after: Duration, comments: bool) -> Option<Failure> {
    let mut world = World::start().await;
    let request = streaming();
    let mut answer = pin!(complete(&world.gateway, &request));
    let exchange = arrived(answer.as_mut(), &mut world.upstream).await;
    advance(head_after).await;
    let stream = exchange.stream();
    stream.raw(": ping\n\n");
    let mut passed = head_after;
    while passed <= FIRST_TOKEN {
        if let Some(answer) = at_once(answer.as_mut()).await {
            return Some(failed(answer));
        }
        advance(Duration::from_secs(10)).await;
        passed += Duration::from_secs(10);
        if comments {
            stream.raw(": ping\n\n");
        }
    }
    advance(Duration::from_secs(1)).await;
    at_once(answer).await.map(failed)
}

#[tokio::test]
async fn the_time_for_the_first_token_runs_from_the_request_not_from_the_head() {
    let _frozen = freeze();
    assert_eq!(
        without_a_token(Duration::from_secs(100), false).await,
        Some(Failure::TimedOut(FIRST_TOKEN))
    );
}

#[tokio::test]
async fn comments_are_no_token() {
    let _frozen = freeze();
    assert_eq!(
        without_a_token(Duration::ZERO, true).await,
        Some(Failure::TimedOut(FIRST_TOKEN))
    );
}

#[tokio::test]
async fn a_pause_between_tokens_is_given_up_after_its_time_and_charged_what_came() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, _stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    {
        let mut next = pin!(answer.next());
        assert_waits(next.as_mut()).await;
        advance(BETWEEN_EVENTS - MILLISECOND).await;
        assert_waits(next.as_mut()).await;
        advance(2 * MILLISECOND).await;
        let failure = next.await.unwrap().unwrap_err();
        assert_eq!(failure, Failure::TimedOut(BETWEEN_EVENTS));
        assert_eq!((failure.code(), failure.status()), ("upstream_timeout", 504));
    }
    assert!(answer.next().await.is_none());
    assert_eq!(world.spent(), spent(1, 3, 1));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn a_stream_may_last_for_any_time_if_it_goes_on() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    for _ in 0..100 {
        advance(BETWEEN_EVENTS - MILLISECOND).await;
        stream.text("b");
        assert_eq!(next_text(&mut answer).await, "b");
    }
    stream.finish("stop");
    stream.done();
    drain(answer).await.unwrap();
}

#[tokio::test]
async fn a_call_for_the_next_event_that_is_dropped_loses_nothing_and_prolongs_nothing() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    for _ in 0..3 {
        assert_waits(pin!(answer.next())).await;
        advance(Duration::from_secs(19)).await;
    }
    stream.raw("data: {\"choices\":[{\"te");
    assert!(at_once(pin!(answer.next())).await.is_none());
    stream.raw("xt\":\"b\"}]}\n\n");
    assert_eq!(next_text(&mut answer).await, "b");
    for _ in 0..6 {
        assert_waits(pin!(answer.next())).await;
        advance(Duration::from_secs(10)).await;
    }
    advance(MILLISECOND).await;
    assert_eq!(
        answer.next().await.unwrap().unwrap_err(),
        Failure::TimedOut(BETWEEN_EVENTS)
    );
}

#[tokio::test]
async fn a_reader_that_is_slow_misses_nothing_that_has_come_meanwhile() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    for round in 0..3 {
        stream.text("b");
        stream.text("c");
        settle().await;
        advance(Duration::from_secs(1000)).await;
        assert_eq!(next_text(&mut answer).await, "b", "round {round}");
        advance(Duration::from_secs(1000)).await;
        assert_eq!(next_text(&mut answer).await, "c", "round {round}");
    }
    stream.finish("stop");
    stream.done();
    settle().await;
    advance(Duration::from_secs(1000)).await;
    drain(answer).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_slow_gets_all_of_a_long_answer() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    // More than sockets and buffers hold, so that the deployment has to wait for the reader.
    let long = "x".repeat(100_000);
    for _ in 0..100 {
        stream.text(&long);
    }
    stream.finish("stop");
    stream.done();
    let mut length = 0;
    loop {
        settle().await;
        advance(Duration::from_secs(100)).await;
        match answer.next().await {
            Some(event) => length += text(&[event.unwrap()]).len(),
            None => break,
        }
    }
    assert_eq!(length, 100 * long.len());
}

#[tokio::test]
async fn a_whole_answer_may_take_ten_minutes_all_in_all() {
    let _frozen = freeze();
    const WHOLE_ANSWER: Duration = Duration::from_secs(600);
    let mut world = World::start().await;
    let request = request(json!({}));
    {
        let mut answer = pin!(complete(&world.gateway, &request));
        let exchange = arrived(answer.as_mut(), &mut world.upstream).await;
        advance(Duration::from_secs(599)).await;
        assert_waits(answer.as_mut()).await;
        // The head comes in time, the rest does not.
        let stream = exchange.stream();
        stream.raw("{\"id\":");
        assert!(at_once(answer.as_mut()).await.is_none());
        advance(Duration::from_millis(1001)).await;
        let answer = at_once(answer).await.expect("its time is over");
        assert_eq!(failed(answer), Failure::TimedOut(WHOLE_ANSWER));
    }
    assert_eq!(world.spent(), spent(1, 0, 0));
}

/// A world whose deployment has these time-outs, and not the usual ones.
async fn with(change: impl FnOnce(&mut Timeouts)) -> World {
    World::with(|setup| change(&mut remote(setup).timeouts)).await
}

#[tokio::test]
async fn the_time_for_the_first_token_can_be_set() {
    let _frozen = freeze();
    let mut world = with(|timeouts| timeouts.first_token = Duration::from_secs(7)).await;
    let request = streaming();
    let mut answer = pin!(complete(&world.gateway, &request));
    let _exchange = arrived(answer.as_mut(), &mut world.upstream).await;
    advance(Duration::from_secs(7) - MILLISECOND).await;
    assert_waits(answer.as_mut()).await;
    advance(2 * MILLISECOND).await;
    assert_eq!(failed(answer.await), Failure::TimedOut(Duration::from_secs(7)));
}

#[tokio::test]
async fn the_time_between_tokens_can_be_set() {
    let _frozen = freeze();
    let mut world = with(|timeouts| timeouts.between_tokens = Duration::from_secs(7)).await;
    let (mut answer, _stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    let mut next = pin!(answer.next());
    assert_waits(next.as_mut()).await;
    advance(Duration::from_secs(7) - MILLISECOND).await;
    assert_waits(next.as_mut()).await;
    advance(2 * MILLISECOND).await;
    assert_eq!(
        next.await.unwrap().unwrap_err(),
        Failure::TimedOut(Duration::from_secs(7))
    );
}

#[tokio::test]
async fn the_time_in_all_bounds_a_stream_that_goes_on_and_on() {
    let _frozen = freeze();
    let total = Duration::from_secs(30);
    let mut world = with(|timeouts| timeouts.total = Some(total)).await;
    let (mut answer, stream) = world.begin().await;
    assert_eq!(next_text(&mut answer).await, "a");
    for _ in 0..29 {
        advance(Duration::from_secs(1)).await;
        stream.text("b");
        assert_eq!(next_text(&mut answer).await, "b");
    }
    let mut next = pin!(answer.next());
    assert_waits(next.as_mut()).await;
    advance(Duration::from_secs(1) + MILLISECOND).await;
    assert_eq!(next.await.unwrap().unwrap_err(), Failure::TimedOut(total));
    assert_eq!(world.spent(), spent(1, 3, 30), "what had come");
}

#[tokio::test]
async fn the_time_in_all_bounds_the_first_token_and_a_whole_answer_too() {
    let _frozen = freeze();
    let total = Duration::from_secs(30);
    for request in [streaming(), request(json!({}))] {
        let mut world = with(|timeouts| timeouts.total = Some(total)).await;
        let mut answer = pin!(complete(&world.gateway, &request));
        let _exchange = arrived(answer.as_mut(), &mut world.upstream).await;
        advance(total - MILLISECOND).await;
        assert_waits(answer.as_mut()).await;
        advance(2 * MILLISECOND).await;
        assert_eq!(failed(answer.await), Failure::TimedOut(total));
    }
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_given_up_after_its_time_and_costs_nothing() {
    let _frozen = freeze();
    // It takes the connection and never says a word of TLS.
    let silent = RawUpstream::start().await;
    let world = World::with(|world| {
        *world = setup(&silent.url().replace("http:", "https:"));
        remote(world).timeouts.connect = Duration::from_secs(3);
    })
    .await;
    let request = streaming();
    let mut answer = pin!(complete(&world.gateway, &request));
    assert!(at_once(answer.as_mut()).await.is_none());
    advance(Duration::from_secs(3) - MILLISECOND).await;
    assert_waits(answer.as_mut()).await;
    advance(2 * MILLISECOND).await;
    let failure = failed(answer.await);
    assert!(
        matches!(&failure, Failure::Unreachable(why) if why.contains("within 3 s")),
        "{failure:?}"
    );
    assert_eq!(world.spent(), spent(0, 0, 0));
}
