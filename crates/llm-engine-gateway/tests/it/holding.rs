//! Requests that are held until their time comes: how many there can be, and what is left of those whose callers go.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::future::poll_immediate;
use llm_engine_gateway::{
    AnswerBody, AnswerStream, Arrival, CompleteError, Gateway, MatchSetup, Per, PolicySetup, Quota,
    RefusalCode, Unit,
};
use llm_engine_wire::openai::Request;
use scripted_upstream::{EventStream, Upstream, stay_frozen};
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, api_key, arrival, arrived, at_once, complete_as, model, policy, refused, remote, request, settle,
    stream_of, streaming,
};

/// The most requests of one caller that are held at the same time.
const MOST_OF_ONE: usize = 1_000;
const UNIT: Duration = Duration::from_millis(10);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<AnswerBody, CompleteError>> + 'a>>;

/// A hundred a second for each caller, one at once; who is beyond is held as long as can be.
async fn world() -> World {
    let mut world = World::with(|setup| {
        setup.models[0].concurrency = NonZeroU32::new(10_000);
        setup.policies = vec![PolicySetup {
            per: Per {
                caller: true,
                ..Per::default()
            },
            hold: Duration::from_secs(60),
            ..policy(
                "p",
                [(
                    Unit::Requests,
                    Quota::with_burst(100, Duration::from_secs(1), 1).unwrap(),
                )],
            )
        }];
    })
    .await;
    for name in ["alice", "bob"] {
        let request = streaming();
        let first = complete_as(&world.gateway, name, &request, "first");
        let mut first = pin!(first);
        arrived(first.as_mut(), &mut world.upstream)
            .await
            .answer_words(1, &["a"]);
        drop(first.await);
    }
    world
}

/// Begins a request, which is held.
async fn hold<'a>(gateway: &'a Gateway, name: &'a str, request: &'a Request, id: &'a str) -> Answer<'a> {
    let mut answer: Answer<'a> = Box::pin(complete_as(gateway, name, request, id));
    assert!(poll_immediate(&mut answer).await.is_none(), "{id} of {name}");
    answer
}

/// Lets a request have its first token; it goes on running.
async fn begin(mut answer: Answer<'_>, upstream: &mut Upstream) -> (AnswerStream, EventStream) {
    let stream = arrived(answer.as_mut(), upstream).await.stream();
    stream.text("a");
    (stream_of(answer.await), stream)
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("r-{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_as_many_as_can_be_held_is_refused_with_a_time_and_others_are_held() {
    let _frozen = stay_frozen();
    let world = world().await;
    let (gateway, request) = (&world.gateway, streaming());
    let ids = ids(MOST_OF_ONE);
    let mut held = Vec::new();
    for id in &ids {
        held.push(hold(gateway, "alice", &request, id).await);
    }
    let beyond = refused(complete_as(gateway, "alice", &request, "beyond").await);
    assert_eq!(beyond.code, RefusalCode::RateLimited);
    let count = u32::try_from(MOST_OF_ONE).unwrap();
    assert_eq!(
        (beyond.retry_after, beyond.booked),
        (Some(UNIT * (count + 1)), true)
    );
    drop(hold(gateway, "bob", &request, "of-bob").await);

    // One goes: there is room for another.
    drop(held.pop());
    drop(hold(gateway, "alice", &request, "next").await);
}

#[tokio::test(start_paused = true)]
async fn who_is_held_and_goes_leaves_nothing_behind() {
    let _frozen = stay_frozen();
    let World {
        gateway,
        mut upstream,
    } = world().await;
    let request = streaming();
    for id in ids(3 * MOST_OF_ONE) {
        drop(hold(&gateway, "alice", &request, &id).await);
    }
    // Nobody has a time before this one.
    let mut next = hold(&gateway, "alice", &request, "next").await;
    advance(UNIT).await;
    arrived(next.as_mut(), &mut upstream)
        .await
        .answer_words(1, &["a"]);
    next.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_that_are_held_are_admitted_in_their_order_when_their_time_comes() {
    let _frozen = stay_frozen();
    let World {
        gateway,
        mut upstream,
    } = world().await;
    let request = streaming();
    let ids = ids(100);
    let mut held = Vec::new();
    for id in &ids {
        held.push(hold(&gateway, "alice", &request, id).await);
    }
    for answer in &mut held {
        advance(UNIT - Duration::from_millis(1)).await;
        assert!(poll_immediate(&mut *answer).await.is_none());
        settle().await;
        assert!(upstream.arrived().is_none());
        advance(Duration::from_millis(1)).await;
        arrived(answer.as_mut(), &mut upstream)
            .await
            .answer_words(1, &["a"]);
        answer.as_mut().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_of_a_caller_is_bounded_in_bytes_too() {
    let _frozen = stay_frozen();
    let world = world().await;
    let (caller, route) = (world.caller("alice"), world.route());
    let request = request(json!({}));
    let large = |id: &'static str| Arrival {
        bytes: 10 * 1024 * 1024,
        ..arrival(id)
    };
    let arrivals = ["1", "2", "3", "4"].map(large);
    let mut answers = Vec::new();
    for arrival in &arrivals {
        let mut answer: Answer<'_> = Box::pin(world.gateway.complete(&caller, &route, &request, arrival));
        let at_once = poll_immediate(&mut answer).await;
        answers.push((answer, at_once));
    }
    let at_once: Vec<_> = answers.iter_mut().map(|(_, at_once)| at_once.take()).collect();
    let [None, None, None, Some(beyond)] = <[_; 4]>::try_from(at_once).unwrap() else {
        panic!("32 MiB hold three of them");
    };
    assert!(refused(beyond).booked);
    let bob = world.caller("bob");
    let arrival = large("of bob");
    let mut of_bob: Answer<'_> = Box::pin(world.gateway.complete(&bob, &route, &request, &arrival));
    assert!(poll_immediate(&mut of_bob).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_is_held_without_a_time_and_goes_takes_no_equal_request_s_time_along() {
    let _frozen = stay_frozen();
    let longest = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    let rate = PolicySetup {
        hold: longest,
        matches: MatchSetup {
            model: Some("m".to_owned()),
            ..MatchSetup::default()
        },
        ..policy("rate", [(Unit::Requests, Quota::new(1, second).unwrap())])
    };
    let two_at_once = PolicySetup {
        hold: longest,
        concurrency: NonZeroU32::new(2),
        ..policy("two", [])
    };
    let World {
        gateway,
        mut upstream,
    } = World::with(|setup| {
        let other = model("n", &remote(setup).url);
        setup.models.push(other);
        for model in &mut setup.models {
            model.concurrency = NonZeroU32::new(10);
        }
        setup.policies = vec![rate, two_at_once];
    })
    .await;
    let (streaming, elsewhere) = (streaming(), request(json!({ "model": "n", "stream": true })));
    let first_of_all = Box::pin(complete_as(&gateway, "bob", &streaming, "first"));
    drop(begin(first_of_all, &mut upstream).await);

    // For the first of two equal requests a time is kept; for the second none can be, as too many are running by then.
    let alice = gateway.authenticate(&api_key("alice")).unwrap();
    let route = gateway.resolve("m").unwrap();
    let mut equal = arrival("equal");
    equal.fingerprint.is_unique = false;
    let alices = || Box::pin(gateway.complete(&alice, route, &streaming, &equal));
    let running = Box::pin(complete_as(&gateway, "bob", &elsewhere, "1"));
    let _running = begin(running, &mut upstream).await;
    let mut equal = alices();
    assert!(poll_immediate(&mut equal).await.is_none());
    let running = Box::pin(complete_as(&gateway, "bob", &elsewhere, "2"));
    let running = begin(running, &mut upstream).await;
    let mut other = alices();
    assert!(poll_immediate(&mut other).await.is_none());
    drop(other);

    drop(running);
    let mut next = hold(&gateway, "carol", &streaming, "next").await;
    advance(second).await;
    assert!(at_once(next.as_mut()).await.is_none());
    assert!(upstream.arrived().is_none(), "it is the time of another");
}

/// A strict quota has no room for those who are late, so one that comes at its time may find that the one before came a
/// little too late. It has done what it was told to, and is not refused for that.
#[tokio::test(start_paused = true)]
async fn who_comes_at_its_time_after_one_that_was_late_waits_for_a_moment_instead_of_being_refused() {
    let _frozen = stay_frozen();
    let World {
        gateway,
        mut upstream,
    } = World::with(|setup| {
        setup.models[0].concurrency = NonZeroU32::new(10);
        let strict = Quota::strict(101, Duration::from_secs(1), 1).unwrap();
        setup.policies = vec![policy("p", [(Unit::Requests, strict)])];
    })
    .await;
    let request = streaming();
    drop(answered(&gateway, "alice", &request, "first", &mut upstream).await);
    for (id, time) in [("second", UNIT), ("third", 2 * UNIT)] {
        let refusal = refused(complete_as(&gateway, "alice", &request, id).await);
        assert_eq!((refusal.retry_after, refusal.booked), (Some(time), true));
    }
    let late = UNIT / 2;
    advance(UNIT + late).await;
    drop(answered(&gateway, "alice", &request, "second", &mut upstream).await);
    advance(UNIT - late).await;
    let mut third = hold(&gateway, "alice", &request, "third").await;
    advance(late).await;
    arrived(third.as_mut(), &mut upstream)
        .await
        .answer_words(1, &["a"]);
    third.await.unwrap();
}

/// Begins a request, which is not held, and has it answered.
async fn answered(
    gateway: &Gateway,
    name: &str,
    request: &Request,
    id: &str,
    upstream: &mut Upstream,
) -> AnswerBody {
    let mut answer = pin!(complete_as(gateway, name, request, id));
    arrived(answer.as_mut(), upstream).await.answer_words(1, &["a"]);
    answer.await.unwrap()
}
