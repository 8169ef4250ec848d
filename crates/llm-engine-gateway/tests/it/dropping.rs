//! A request that its caller drops, at every stage: it is settled once, and its place is free.

use std::pin::pin;

use scripted_upstream::freeze;
use serde_json::json;

use crate::harness::{
    Spent, World, arrived, assert_waits, at_once, complete, drain, next_text, request, spent, streaming,
};

#[tokio::test]
async fn dropped_before_it_is_polled_it_was_never_there() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let request = streaming();
    drop(world.complete(&request));
    assert_eq!(world.spent(), spent(0, 0, 0));
    world.assert_place_is_free().await;
    assert!(world.upstream.arrived().is_none());
}

#[tokio::test]
async fn dropped_while_it_waits_for_a_place_it_costs_nothing_and_leaves_the_queue() {
    let _frozen = freeze();
    let mut world = World::with(|setup| setup.models[0].queue_length = 1).await;
    let (answer, stream) = world.begin().await;
    for _ in 0..3 {
        let request = streaming();
        let mut waiting = pin!(world.complete(&request));
        assert_waits(waiting.as_mut()).await;
        assert_eq!(
            (world.spent().requests, world.spent().running),
            (2, 2),
            "it counts while it waits"
        );
    }
    assert_eq!(
        world.spent(),
        Spent {
            running: 1,
            ..spent(1, 3, 20)
        }
    );
    drop(answer);
    stream.hung_up().await;
    assert_eq!(world.spent(), spent(1, 3, 1));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn dropped_after_it_was_sent_and_before_the_head_it_pays_for_its_prompt() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let exchange = world.abandon(&streaming()).await;
    assert_eq!(world.spent(), spent(1, 3, 0));
    exchange.stream().hung_up().await;
    assert_eq!(world.spent(), spent(1, 3, 0));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn dropped_between_the_head_and_the_first_event_it_pays_for_its_prompt() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let request = streaming();
    let stream = {
        let mut answer = pin!(complete(&world.gateway, &request));
        let stream = arrived(answer.as_mut(), &mut world.upstream).await.stream();
        stream.raw(": ping\n\n");
        assert!(at_once(answer).await.is_none());
        stream
    };
    assert_eq!(world.spent(), spent(1, 3, 0));
    stream.hung_up().await;
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn dropped_before_its_first_event_was_taken_it_pays_for_it() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    drop(answer);
    stream.hung_up().await;
    assert_eq!(world.spent(), spent(1, 3, 1));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn dropped_in_mid_stream_it_pays_for_what_was_read() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    stream.text("b");
    assert_eq!(next_text(&mut answer).await, "a");
    assert_eq!(next_text(&mut answer).await, "b");
    drop(answer);
    stream.hung_up().await;
    assert_eq!(world.spent(), spent(1, 3, 2));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn dropped_after_the_usage_and_before_the_end_it_pays_the_usage() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.usage(7, 4);
    for _ in 0..3 {
        answer.next().await.unwrap().unwrap();
    }
    drop(answer);
    stream.hung_up().await;
    assert_eq!(world.spent(), spent(1, 7, 4));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn after_the_end_nothing_more_happens() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.usage(7, 4);
    stream.done();
    while answer.next().await.is_some() {}
    assert_eq!(
        world.spent(),
        spent(1, 7, 4),
        "settled at the end, not at the drop"
    );
    world.assert_place_is_free().await;
    let before = world.spent();
    assert!(answer.next().await.is_none());
    drop(answer);
    assert_eq!(world.spent(), before);
}

#[tokio::test]
async fn after_a_failure_nothing_more_happens() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    stream.cut();
    answer.next().await.unwrap().unwrap();
    answer.next().await.unwrap().unwrap_err();
    assert_eq!(
        world.spent(),
        spent(1, 3, 1),
        "settled with the failure, not at the drop"
    );
    world.assert_place_is_free().await;
    let before = world.spent();
    drop(answer);
    assert_eq!(world.spent(), before);
}

#[tokio::test]
async fn many_that_are_dropped_leave_nothing_behind() {
    let _frozen = freeze();
    let mut world = World::start().await;
    for count in 1..=50 {
        let (answer, _stream) = world.begin().await;
        drop(answer);
        assert_eq!(world.spent(), spent(count, 3 * count, count));
        assert_eq!(world.route().running(), 0);
    }
}

#[tokio::test]
async fn a_panic_in_whoever_reads_settles_as_a_drop_does() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    let reader = tokio::spawn(async move {
        let _answer = answer;
        panic!("on purpose");
    });
    assert!(reader.await.unwrap_err().is_panic());
    stream.hung_up().await;
    assert_eq!(world.spent(), spent(1, 3, 1));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn a_whole_answer_that_is_dropped_in_flight_pays_for_its_prompt() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let exchange = world.abandon(&request(json!({}))).await;
    assert_eq!(world.spent(), spent(1, 3, 0));
    exchange.stream().hung_up().await;
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn an_answer_can_outlive_the_gateway() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    let World { gateway, .. } = world;
    drop(gateway);
    stream.finish("stop");
    stream.done();
    drain(answer).await.unwrap();
}
