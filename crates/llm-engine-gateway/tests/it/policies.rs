//! Several policies at once, and whom they count together.

use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_gateway::{Level, MatchSetup, Per, PolicySetup, RefusalCode, Unit};
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, complete_as, drain, model, per_minute, policy, refused, remote, request, streaming,
};

/// The models `m` and `n`, also called `n2`, under these policies.
async fn world(policies: Vec<PolicySetup>) -> World {
    World::with(|setup| {
        let mut second = model("n", &remote(setup).url);
        second.aliases = vec!["n2".to_owned()];
        setup.models.push(second);
        setup.policies = policies;
    })
    .await
}

/// Whether the caller's request for the model is admitted. It is dropped at once, which charges the request alone.
async fn admitted(world: &mut World, name: &str, model: &str) -> bool {
    let request = request(json!({ "model": model, "stream": true }));
    tokio::select! {
        answer = complete_as(&world.gateway, name, &request, "r-1") => {
            assert_eq!(refused(answer).code, RefusalCode::RateLimited);
            false
        }
        _exchange = world.upstream.next() => true,
    }
}

fn remaining(levels: &[Level]) -> Vec<(String, u64)> {
    levels
        .iter()
        .map(|level| (level.policy.to_string(), level.remaining))
        .collect()
}

#[tokio::test]
async fn a_refusal_by_some_changes_no_level_and_names_all_of_them_with_the_longest_wait() {
    let _frozen = freeze();
    let mut world = world(vec![
        policy("wide", [per_minute(Unit::Requests, 60)]),
        policy("narrow", [per_minute(Unit::Requests, 1)]),
        policy("tokens", [per_minute(Unit::OutputTokens, 30)]),
    ])
    .await;
    assert!(admitted(&mut world, "alice", "m").await);
    // The request is gone and has cost one; take most of the tokens as well.
    advance(Duration::from_secs(60)).await;
    let (answer, stream) = world.begin().await;
    stream.finish("stop");
    stream.usage(1, 20);
    stream.done();
    drain(answer).await.unwrap();

    let before = world.levels("alice");
    assert_eq!(
        remaining(&before),
        [
            ("wide".to_owned(), 59),
            ("narrow".to_owned(), 0),
            ("tokens".to_owned(), 10)
        ]
    );
    for _ in 0..3 {
        let refusal = refused(world.complete(&streaming()).await);
        assert_eq!(refusal.policy.as_deref(), Some("narrow"));
        assert_eq!((refusal.limit, refusal.exact), (Some(1), true));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(60)));
        assert_eq!(
            refusal.message,
            "Policy narrow allows 1 request per minute, this request asks for 1 and 0 are left, and Policy tokens \
             allows 30 output tokens per minute, this request asks for 20 and 10 are left; try again in 60.0 s."
        );
        assert_eq!(world.levels("alice"), before);
    }
    assert!(world.upstream.arrived().is_none(), "nothing of it went upstream");
    advance(Duration::from_secs(60)).await;
    assert!(admitted(&mut world, "alice", "m").await);
}

#[tokio::test]
async fn what_can_never_fit_is_told_apart_from_not_now_whatever_else_refuses() {
    let _frozen = freeze();
    for policies in [
        vec![
            policy("narrow", [per_minute(Unit::Requests, 1)]),
            policy("small", [per_minute(Unit::OutputTokens, 100)]),
        ],
        vec![
            policy("small", [per_minute(Unit::OutputTokens, 100)]),
            policy("narrow", [per_minute(Unit::Requests, 1)]),
        ],
    ] {
        let mut world = world(policies).await;
        assert!(admitted(&mut world, "alice", "m").await);
        let refusal = refused(world.complete(&request(json!({ "max_tokens": 101 }))).await);
        assert_eq!(refusal.code, RefusalCode::NeverFits);
        assert_eq!(
            (refusal.code.status(), refusal.code.as_str()),
            (400, "never_fits")
        );
        assert_eq!(refusal.policy.as_deref(), Some("small"));
        assert_eq!((refusal.limit, refusal.retry_after), (Some(100), None));
        let refusal = refused(world.complete(&request(json!({ "max_tokens": 100 }))).await);
        assert_eq!(refusal.code, RefusalCode::RateLimited);
        assert!(refusal.retry_after.is_some());
    }
}

#[tokio::test]
async fn what_just_fits_is_admitted_when_the_bucket_is_full() {
    let _frozen = freeze();
    let quotas = [
        per_minute(Unit::InputTokens, 3),
        per_minute(Unit::OutputTokens, 20),
        per_minute(Unit::Tokens, 23),
    ];
    let mut world = world(vec![policy("p", quotas)]).await;
    assert!(admitted(&mut world, "alice", "m").await);
    let long_prompt = request(json!({ "prompt": "1234567890" }));
    assert_eq!(
        refused(world.complete(&long_prompt).await).code,
        RefusalCode::NeverFits
    );
    let several = request(json!({ "n": 2, "max_tokens": 11 }));
    assert_eq!(
        refused(world.complete(&several).await).code,
        RefusalCode::NeverFits
    );
}

#[tokio::test]
async fn a_maximum_beyond_all_reason_never_fits_and_needs_no_policy_to_be_harmless() {
    let _frozen = freeze();
    let absurd = request(json!({ "max_tokens": u64::MAX, "n": 128, "stream": true }));
    let limited = world(vec![policy("p", [per_minute(Unit::Tokens, 1_000_000)])]).await;
    assert_eq!(
        refused(limited.complete(&absurd).await).code,
        RefusalCode::NeverFits
    );
    let mut unlimited = world(Vec::new()).await;
    let exchange = unlimited.abandon(&absurd).await;
    assert_eq!(exchange.body["max_tokens"], u64::MAX);
}

/// Who is still admitted after Alice asked for `m`, of (Alice, m), (Alice, n), (Bob, m), (Carol, m), under one request a
/// minute of this policy.
async fn admitted_after_alice(matches: MatchSetup, per: Per) -> [bool; 4] {
    let policy = PolicySetup {
        matches,
        per,
        ..policy("p", [per_minute(Unit::Requests, 1)])
    };
    let mut admitted_then = [false; 4];
    for (index, (name, model)) in [("alice", "m"), ("alice", "n"), ("bob", "m"), ("carol", "m")]
        .into_iter()
        .enumerate()
    {
        let mut world = world(vec![policy.clone()]).await;
        assert!(admitted(&mut world, "alice", "m").await);
        admitted_then[index] = admitted(&mut world, name, model).await;
    }
    admitted_then
}

#[tokio::test]
async fn callers_teams_and_models_have_buckets_of_their_own_where_a_policy_says_so() {
    let _frozen = freeze();
    let per = |caller, team, model| Per {
        caller,
        team,
        model,
        ..Per::default()
    };
    for (per, expected) in [
        (per(false, false, false), [false, false, false, false]),
        (per(true, false, false), [false, false, true, true]),
        (per(false, true, false), [false, false, false, true]),
        (per(false, false, true), [false, true, false, false]),
        (per(true, false, true), [false, true, true, true]),
        (per(false, true, true), [false, true, false, true]),
        (per(true, true, true), [false, true, true, true]),
    ] {
        assert_eq!(
            admitted_after_alice(MatchSetup::default(), per).await,
            expected,
            "{per:?}"
        );
    }
}

#[tokio::test]
async fn a_policy_counts_only_whom_it_matches() {
    let _frozen = freeze();
    let all = MatchSetup::default();
    for (matches, expected) in [
        (
            MatchSetup {
                caller: Some("alice".to_owned()),
                ..all.clone()
            },
            [false, false, true, true],
        ),
        (
            MatchSetup {
                team: Some("red".to_owned()),
                ..all.clone()
            },
            [false, false, false, true],
        ),
        (
            MatchSetup {
                model: Some("m".to_owned()),
                ..all.clone()
            },
            [false, true, false, false],
        ),
        (
            MatchSetup {
                caller: Some("bob".to_owned()),
                ..all.clone()
            },
            [true, true, true, true],
        ),
        (
            MatchSetup {
                team: Some("red".to_owned()),
                model: Some("m".to_owned()),
                ..all.clone()
            },
            [false, true, false, true],
        ),
    ] {
        assert_eq!(
            admitted_after_alice(matches.clone(), Per::default()).await,
            expected,
            "{matches:?}"
        );
    }
}

#[tokio::test]
async fn another_name_of_a_model_is_the_same_model() {
    let _frozen = freeze();
    let per_model = PolicySetup {
        per: Per {
            model: true,
            ..Per::default()
        },
        ..policy("p", [per_minute(Unit::Requests, 1)])
    };
    let mut world = world(vec![per_model]).await;
    assert!(admitted(&mut world, "alice", "n").await);
    assert!(!admitted(&mut world, "alice", "n2").await);
    assert!(admitted(&mut world, "alice", "m").await);
}

#[tokio::test]
async fn a_caller_sees_the_levels_of_those_policies_that_count_it() {
    let _frozen = freeze();
    let per_caller = Per {
        caller: true,
        ..Per::default()
    };
    let own = PolicySetup {
        per: per_caller,
        ..policy("own", [per_minute(Unit::Requests, 5)])
    };
    let team = PolicySetup {
        matches: MatchSetup {
            team: Some("red".to_owned()),
            ..MatchSetup::default()
        },
        ..policy("team", [per_minute(Unit::Requests, 9)])
    };
    let mut world = world(vec![own, team]).await;
    assert!(admitted(&mut world, "alice", "m").await);
    let seen = |world: &World, name: &str| remaining(&world.levels(name));
    assert_eq!(
        seen(&world, "alice"),
        [("own".to_owned(), 4), ("team".to_owned(), 8)]
    );
    assert_eq!(
        seen(&world, "bob"),
        [("own".to_owned(), 5), ("team".to_owned(), 8)]
    );
    assert_eq!(seen(&world, "carol"), [("own".to_owned(), 5)]);
}

#[tokio::test]
async fn requests_at_the_same_time_are_counted_until_the_last_of_the_answer() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        setup.models[0].concurrency = NonZeroU32::new(10);
        setup.policies = vec![PolicySetup {
            concurrency: NonZeroU32::new(2),
            ..policy("p", [])
        }];
    })
    .await;
    let (first, _first) = world.begin().await;
    let (mut second, stream) = world.begin().await;
    let refusal = refused(world.complete(&streaming()).await);
    assert_eq!((refusal.code, refusal.exact), (RefusalCode::RateLimited, false));
    assert!(refusal.retry_after.unwrap() > Duration::ZERO);
    assert_eq!((refusal.policy.as_deref(), refusal.limit), (Some("p"), Some(2)));

    stream.finish("stop");
    second.next().await.unwrap().unwrap();
    second.next().await.unwrap().unwrap();
    refused(world.complete(&streaming()).await);
    stream.done();
    assert!(second.next().await.is_none());
    let (third, _third) = world.begin().await;
    refused(world.complete(&streaming()).await);
    drop((first, third));
    world.abandon(&streaming()).await;
    let (_fourth, _stream) = world.begin().await;
    let (_fifth, _stream) = world.begin().await;
    refused(world.complete(&streaming()).await);
}
