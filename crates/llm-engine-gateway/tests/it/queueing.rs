//! The line in front of a model.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::time::Duration;

use llm_engine_gateway::{AnswerBody, CompleteError, Gateway, Quota, RefusalCode, Unit};
use llm_engine_wire::openai::Request;
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, arrived, assert_waits, at_once, complete, complete_as, drain, model, policy, refused, remote,
    request, spent, stream_of, streaming,
};

async fn world(concurrency: u32, queue_length: usize) -> World {
    World::with(|setup| {
        setup.models[0].concurrency = NonZeroU32::new(concurrency);
        setup.models[0].queue_length = queue_length;
        setup.policies[0].concurrency = None;
    })
    .await
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<AnswerBody, CompleteError>> + 'a>>;

/// Alice's requests of these names, each in the line behind the one before.
async fn line<'a>(gateway: &'a Gateway, request: &'a Request, ids: &[&'a str]) -> Vec<Waiting<'a>> {
    let mut line = Vec::new();
    for id in ids {
        let mut waiting: Waiting<'a> = Box::pin(complete_as(gateway, "alice", request, id));
        assert_waits(waiting.as_mut()).await;
        line.push(waiting);
    }
    line
}

#[tokio::test]
async fn who_came_first_is_first() {
    let _frozen = freeze();
    let mut world = world(1, 10).await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let ids = ["a", "b", "c", "d"];
    let mut line = line(&world.gateway, &request, &ids).await;
    drop(answer);
    for id in ids {
        let mut first = line.remove(0);
        for later in &mut line {
            // Woken in any order, they keep theirs.
            assert_waits(later.as_mut()).await;
        }
        let exchange = arrived(first.as_mut(), &mut world.upstream).await;
        assert_eq!(exchange.headers["x-request-id"], id);
        assert_eq!(world.route().running(), 1);
        exchange.answer_words(1, &["x"]);
        drain(stream_of(first.await)).await.unwrap();
    }
    assert_eq!(world.spent(), spent(5, 7, 5));
}

#[tokio::test]
async fn nobody_new_passes_those_who_wait() {
    let _frozen = freeze();
    let mut world = world(1, 10).await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let mut line = line(&world.gateway, &request, &["waits"]).await;
    drop(answer);
    // The place is free, and it is already somebody's.
    let mut newcomer = pin!(complete(&world.gateway, &request));
    assert_waits(newcomer.as_mut()).await;
    let exchange = arrived(line[0].as_mut(), &mut world.upstream).await;
    assert_eq!(exchange.headers["x-request-id"], "waits");
}

#[tokio::test]
async fn one_who_leaves_the_line_with_the_place_already_his_passes_it_on() {
    let _frozen = freeze();
    let mut world = world(1, 10).await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let mut line = line(&world.gateway, &request, &["leaves", "stays"]).await;
    drop(answer);
    drop(line.remove(0));
    let exchange = arrived(line[0].as_mut(), &mut world.upstream).await;
    assert_eq!(exchange.headers["x-request-id"], "stays");
}

#[tokio::test]
async fn the_line_has_its_length_and_who_is_beyond_it_is_refused_at_once_and_pays_nothing() {
    let _frozen = freeze();
    let mut world = world(1, 2).await;
    let (_answer, _stream) = world.begin().await;
    let request = streaming();
    let line = line(&world.gateway, &request, &["a", "b"]).await;
    let before = world.spent();
    for _ in 0..3 {
        let refusal = refused(world.complete(&request).await);
        assert_eq!(refusal.code, RefusalCode::Saturated);
        assert_eq!((refusal.code.status(), refusal.code.as_str()), (429, "saturated"));
        assert!(!refusal.exact && refusal.policy.is_none());
        assert!(refusal.retry_after.unwrap() > Duration::ZERO);
        assert_eq!(world.spent(), before);
    }
    drop(line);
    let waiting = pin!(complete(&world.gateway, &request));
    assert_waits(waiting).await;
}

#[tokio::test]
async fn nobody_waits_longer_than_the_configured_time() {
    let _frozen = freeze();
    let mut world = world(1, 2).await;
    let (_answer, _stream) = world.begin().await;
    let request = streaming();
    {
        let mut first = pin!(complete(&world.gateway, &request));
        assert_waits(first.as_mut()).await;
        advance(Duration::from_secs(1)).await;
        let mut second = pin!(complete(&world.gateway, &request));
        assert_waits(second.as_mut()).await;
        advance(Duration::from_millis(999)).await;
        assert_waits(first.as_mut()).await;
        advance(Duration::from_millis(2)).await;
        assert_eq!(
            refused(at_once(first).await.unwrap()).code,
            RefusalCode::Saturated
        );
        assert_waits(second.as_mut()).await;
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            refused(at_once(second).await.unwrap()).code,
            RefusalCode::Saturated
        );
    }
    assert_eq!(
        world.spent(),
        spent(1, 3, 20),
        "only the one that runs is charged"
    );
    assert!(world.upstream.arrived().is_none());
}

#[tokio::test]
async fn a_place_is_free_again_however_its_request_ends() {
    let _frozen = freeze();
    let mut world = world(1, 1).await;
    for round in 0..3 {
        let request = streaming();
        let mut running = Box::pin(complete(&world.gateway, &request));
        let exchange = arrived(running.as_mut(), &mut world.upstream).await;
        let mut waiting = pin!(complete(&world.gateway, &request));
        assert_waits(waiting.as_mut()).await;
        match round {
            0 => {
                exchange.answer(500, &[], json!({}));
                running.await.unwrap_err();
            }
            1 => drop(running),
            _ => {
                exchange.answer_words(1, &["a"]);
                drain(stream_of(running.await)).await.unwrap();
            }
        }
        arrived(waiting.as_mut(), &mut world.upstream).await;
    }
    assert_eq!(world.route().running(), 0);
}

#[tokio::test]
async fn each_is_told_a_time_of_its_own_and_later_if_requests_take_long() {
    let _frozen = freeze();
    let refusal = async |world: &World, id| {
        let request = streaming();
        refused(complete_as(&world.gateway, "alice", &request, id).await)
    };
    let mut world = world(1, 0).await;
    let (answer, _stream) = world.begin().await;
    let told = [refusal(&world, "a").await, refusal(&world, "b").await];
    assert!(told.iter().all(|refusal| refusal.booked && !refusal.exact));
    let [first, second] = told.map(|refusal| refusal.retry_after.unwrap());
    assert!(
        first < second && second < Duration::from_secs(2),
        "{first:?} {second:?}"
    );

    let mut answer = Some(answer);
    for _ in 0..200 {
        advance(Duration::from_secs(20)).await;
        drop(answer.take());
        let (next, stream) = world.begin().await;
        answer = Some(next);
        drop(stream);
    }
    let hint = refusal(&world, "c").await.retry_after.unwrap();
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(40)).contains(&hint),
        "{hint:?}"
    );
}

#[tokio::test]
async fn as_many_run_as_there_are_places_and_each_model_has_its_own() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        let second = model("n", &remote(setup).url);
        setup.models.push(second);
        setup.models[0].concurrency = NonZeroU32::new(3);
    })
    .await;
    let mut running = Vec::new();
    for count in 1..=3 {
        running.push(world.begin().await);
        assert_eq!(world.route().running(), count);
    }
    assert_eq!(
        refused(world.complete(&streaming()).await).code,
        RefusalCode::Saturated
    );
    let other = request(json!({ "model": "n", "stream": true }));
    arrived(pin!(complete(&world.gateway, &other)), &mut world.upstream).await;
}

#[tokio::test]
async fn who_comes_at_its_time_and_finds_the_model_full_keeps_its_turn() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        setup.models[0].queue_length = 0;
        let one_a_second = Quota::with_burst(60, Duration::from_secs(60), 1).unwrap();
        setup.policies = vec![policy("p", [(Unit::Requests, one_a_second)])];
    })
    .await;
    let (answer, _stream) = world.begin().await;
    let request = streaming();
    let limited = refused(complete_as(&world.gateway, "alice", &request, "booked").await);
    assert_eq!(
        (limited.retry_after, limited.booked),
        (Some(Duration::from_secs(1)), true)
    );
    advance(Duration::from_secs(1)).await;
    let full = refused(complete_as(&world.gateway, "alice", &request, "booked").await);
    assert_eq!(full.code, RefusalCode::Saturated);
    let wait = full.retry_after.unwrap();
    drop(answer);
    // Somebody else comes when it is almost there again.
    let little = Duration::from_millis(100);
    advance(wait - little).await;
    let other = refused(complete_as(&world.gateway, "bob", &request, "other").await);
    assert_eq!(other.code, RefusalCode::RateLimited);
    advance(little).await;
    let mut booked = pin!(complete_as(&world.gateway, "alice", &request, "booked"));
    arrived(booked.as_mut(), &mut world.upstream).await;
}
