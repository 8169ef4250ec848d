//! A deployment that has told us when to come back is not asked before.

use std::pin::pin;
use std::time::Duration;

use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{World, at_once, complete, failed, model, settle, spent, streaming};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A world whose deployment has just said to come back after two seconds.
async fn cooling() -> World {
    let mut world = World::start().await;
    let told = world
        .failure(|exchange| exchange.answer(429, &[("retry-after", "2")], json!({})))
        .await;
    assert_eq!(told.retry_after(), Some(2 * SECOND));
    world
}

#[tokio::test]
async fn who_comes_meanwhile_is_told_the_rest_of_the_time_at_once_and_pays_nothing() {
    let _frozen = freeze();
    let mut world = cooling().await;
    advance(500 * MILLISECOND).await;
    let mut told = Vec::new();
    for _ in 0..20 {
        let request = streaming();
        let answer = at_once(pin!(complete(&world.gateway, &request))).await;
        let failure = failed(answer.expect("nobody has to be asked"));
        assert_eq!((failure.status(), failure.code()), (429, "upstream_limited"));
        told.push(failure.retry_after().unwrap());
    }
    assert_eq!(world.spent(), spent(1, 0, 0), "what it cost before");
    let rest = 1500 * MILLISECOND;
    assert!(
        told.iter().all(|told| (rest..=rest + 2 * SECOND).contains(told)),
        "{told:?}"
    );
    assert!(told.is_sorted_by(|a, b| a < b), "never a herd: {told:?}");
    settle().await;
    assert!(world.upstream.arrived().is_none(), "nothing was sent");
}

#[tokio::test]
async fn it_is_asked_again_when_the_time_is_over_and_not_a_moment_before() {
    let _frozen = freeze();
    let mut world = cooling().await;
    advance(2 * SECOND - MILLISECOND).await;
    failed(world.complete(&streaming()).await);
    advance(MILLISECOND).await;
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn two_refusals_in_a_row_are_two_waits() {
    let _frozen = freeze();
    let mut world = cooling().await;
    advance(2 * SECOND).await;
    let again = world
        .failure(|exchange| exchange.answer(429, &[("retry-after", "2")], json!({})))
        .await;
    assert_eq!(again.retry_after(), Some(2 * SECOND));
    advance(2 * SECOND - MILLISECOND).await;
    failed(world.complete(&streaming()).await);
    advance(MILLISECOND).await;
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn other_models_are_answered_meanwhile() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        let url = crate::harness::remote(setup).url.clone();
        setup.models.push(model("other", &url));
    })
    .await;
    world
        .failure(|exchange| exchange.answer(429, &[("retry-after", "2")], json!({})))
        .await;
    let other = crate::harness::request(json!({ "model": "other", "stream": true }));
    let failure = world
        .failure_of(&other, |exchange| exchange.answer(500, &[], json!({})))
        .await;
    assert_eq!(failure.status(), 502);
}

#[tokio::test]
async fn a_failure_or_a_rejection_cools_nothing() {
    let _frozen = freeze();
    let mut world = World::start().await;
    for status in [400, 401, 500, 503] {
        world
            .failure(move |exchange| exchange.answer(status, &[("retry-after", "60")], json!({})))
            .await;
    }
    world.assert_place_is_free().await;
}
