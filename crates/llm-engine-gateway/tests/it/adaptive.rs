//! Deployments of which it is found out how much they can take.

use std::num::NonZeroU32;
use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{AnswerBody, CompleteError, DeploymentSetup, RefusalCode, Setup};
use llm_engine_wire::openai::{Kind, Request};
use scripted_upstream::{Upstream, freeze};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{
    World, arrived, assert_waits, at_once, complete, complete_as, deployment, drain, model, refused, remote,
    request, settle, spent, stream_of, streaming,
};

fn adaptive(setup: &mut Setup) {
    remote(setup).is_adaptive = true;
    setup.models[0].concurrency = None;
    setup.models[0].queue_length = 100;
    setup.policies[0].concurrency = None;
}

#[tokio::test]
async fn a_whole_answer_is_asked_for_as_a_stream_and_loses_nothing_by_it() {
    let _frozen = freeze();
    let mut world = World::with(adaptive).await;
    let fields = json!({
        "model": "m", "max_tokens": 20, "messages": [{ "role": "user", "content": "123456789" }],
        "tools": [{ "type": "function", "function": { "name": "f" } }],
    });
    let request = Request::from_fields(Kind::Chat, fields.as_object().unwrap().clone()).unwrap();
    let mut answer = pin!(complete(&world.gateway, &request));
    let sent = arrived(answer.as_mut(), &mut world.upstream).await;
    assert_eq!(sent.body["stream"], true);
    let stream = sent.stream();
    let delta = |delta: Value, reason: Option<&str>| {
        json!({ "id": "c", "created": 1, "model": "up", "extra": 1.50,
                "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
    };
    let call =
        |arguments: &str| json!({ "tool_calls": [{ "index": 0, "function": { "arguments": arguments } }] });
    stream.event(&delta(json!({ "role": "assistant", "content": null }), None));
    stream.event(&delta(
        json!({ "tool_calls": [{ "index": 0, "id": "t", "type": "function",
                                "function": { "name": "f", "arguments": "" } }] }),
        None,
    ));
    stream.event(&delta(call("{\"a\":"), None));
    stream.event(&delta(call(" 1}"), None));
    stream.event(&delta(json!({}), Some("tool_calls")));
    stream.usage(7, 9);
    stream.done();
    let AnswerBody::Whole(answer) = answer.await.unwrap() else {
        panic!("it is whole")
    };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["model"], "m");
    assert_eq!(answer["extra"], 1.5);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(
        call["function"],
        json!({ "name": "f", "arguments": "{\"a\": 1}" })
    );
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    assert_eq!(world.spent(), spent(1, 7, 9));
}

#[tokio::test]
async fn a_server_that_does_not_stream_may_answer_whole() {
    let _frozen = freeze();
    let mut world = World::with(adaptive).await;
    let request = request(json!({}));
    let mut answer = pin!(complete(&world.gateway, &request));
    let sent = arrived(answer.as_mut(), &mut world.upstream).await;
    assert_eq!(sent.body["stream"], true);
    let choice = json!({ "index": 0, "text": "x", "finish_reason": "stop" });
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 });
    sent.answer(
        200,
        &[],
        json!({ "id": "c", "object": "text_completion", "created": 1, "model": "up",
                                  "choices": [choice], "usage": usage }),
    );
    let AnswerBody::Whole(answer) = answer.await.unwrap() else {
        panic!("it is whole")
    };
    assert!(answer.contains(r#""text":"x""#), "{answer}");
    assert_eq!(world.spent(), spent(1, 3, 1));
}

#[tokio::test]
async fn what_would_lose_something_as_a_stream_is_asked_for_whole() {
    let _frozen = freeze();
    let mut world = World::with(adaptive).await;
    let request = request(json!({ "echo": true }));
    let answer = pin!(complete(&world.gateway, &request));
    let sent = arrived(answer, &mut world.upstream).await;
    assert_ne!(sent.body["stream"], true);
}

#[tokio::test]
async fn when_first_tokens_stop_coming_less_is_sent_and_who_is_refused_is_told_when_to_come() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        adaptive(setup);
        setup.policies.clear();
    })
    .await;
    let request = streaming();
    world.answer_after(Duration::from_millis(100), 20).await;
    // From now on there are none.
    let ids: Vec<String> = (0..60).map(|number| format!("r-{number}")).collect();
    let mut calls = Vec::new();
    let mut refusals = Vec::new();
    for id in &ids {
        let mut call = Box::pin(complete_as(&world.gateway, "alice", &request, id));
        match at_once(call.as_mut()).await {
            None => calls.push(call),
            Some(answer) => refusals.push(refused(answer)),
        }
        advance(Duration::from_millis(200)).await;
    }
    settle().await;
    // Others have waited in vain.
    for call in &mut calls {
        refusals.extend(at_once(call.as_mut()).await.map(refused));
    }
    let mut sent = 0;
    while world.upstream.arrived().is_some() {
        sent += 1;
    }
    assert!((2..=25).contains(&sent), "{sent}");
    assert!(!refusals.is_empty());
    for refusal in &refusals {
        assert_eq!(refusal.code, RefusalCode::Saturated);
        assert!(refusal.retry_after.unwrap() > Duration::ZERO);
    }
    let mut told: Vec<Duration> = refusals
        .iter()
        .filter_map(|refusal| refusal.retry_after)
        .collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), refusals.len(), "each has a time of its own");
}

/// The model `m` with one place at an adaptive deployment, and one that limits itself.
async fn with_overflow() -> (World, Upstream) {
    let overflow = Upstream::start().await;
    let url = overflow.url().to_owned();
    let world = World::with(|setup| {
        adaptive(setup);
        setup.models[0].concurrency = NonZeroU32::new(1);
        setup.models[0].queue_length = 0;
        setup.models[0].deployments.push(deployment(&url));
    })
    .await;
    (world, overflow)
}

#[tokio::test]
async fn what_is_too_much_for_them_goes_to_one_that_limits_itself() {
    let _frozen = freeze();
    let (mut world, mut overflow) = with_overflow().await;
    let (_answer, _stream) = world.begin().await;
    let request = streaming();
    let mut second = pin!(complete_as(&world.gateway, "alice", &request, "second"));
    let exchange = arrived(second.as_mut(), &mut overflow).await;
    exchange.answer_words(3, &["x"]);
    drain(stream_of(second.await)).await.unwrap();
    assert!(world.upstream.arrived().is_none());
}

/// The model `m`, in whose place `n` answers, of which there is one at this upstream.
async fn with_fallback() -> (World, Upstream) {
    let other = Upstream::start().await;
    let url = other.url().to_owned();
    let world = World::with(|setup| {
        setup.models[0].fallbacks = vec!["n".to_owned()];
        setup.models.push(model("n", &url));
    })
    .await;
    (world, other)
}

#[tokio::test]
async fn while_a_model_can_not_answer_another_one_does_under_its_own_name() {
    let _frozen = freeze();
    let (mut world, mut other) = with_fallback().await;
    let request = request(json!({}));
    {
        let mut answer = pin!(complete(&world.gateway, &request));
        let exchange = arrived(answer.as_mut(), &mut world.upstream).await;
        exchange.answer(500, &[], json!({}));
        let exchange = arrived(answer.as_mut(), &mut other).await;
        exchange.answer_as_asked(3, &["x"]);
        let AnswerBody::Whole(answer) = answer.await.unwrap() else {
            panic!("it is whole")
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["model"], "n");
    }
    assert_eq!(world.spent(), spent(1, 3, 1), "only the answer is charged");
    // Full, it is the same.
    let (_answer, _stream) = world.begin().await;
    let second = streaming();
    let mut answer = pin!(complete_as(&world.gateway, "alice", &second, "second"));
    arrived(answer.as_mut(), &mut other).await.answer_words(3, &["x"]);
    drain(stream_of(answer.await)).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_asked_of_another_model() {
    let _frozen = freeze();
    let (mut world, mut other) = with_fallback().await;
    let rejected = json!({ "error": { "message": "no" } });
    let failure = world
        .failure(|exchange| exchange.answer(400, &[], rejected))
        .await;
    assert_eq!(failure.status(), 400);
    settle().await;
    assert!(other.arrived().is_none());
}

#[tokio::test]
async fn a_model_can_not_stand_in_for_itself_or_be_unknown() {
    for fallback in ["m", "nobody"] {
        let mut setup = crate::harness::setup("http://127.0.0.1:9/v1");
        setup.models[0].fallbacks = vec![fallback.to_owned()];
        let error = llm_engine_gateway::Gateway::start(setup).unwrap_err();
        assert!(error.to_string().contains(fallback), "{error}");
    }
}

#[tokio::test]
async fn a_deadline_travels_with_each_attempt_and_what_is_left_gets_less() {
    let _frozen = freeze();
    let mut second = Upstream::start().await;
    let url = second.url().to_owned();
    let mut world = World::with(|setup| {
        setup.models[0].concurrency = None;
        setup.models[0].deployments.push(deployment(&url));
        let deployments = setup.models[0].deployments.iter_mut();
        for deployment in deployments {
            if let DeploymentSetup::Remote(remote) = deployment {
                remote.timeouts.first_token = Duration::from_secs(2);
            }
        }
    })
    .await;
    let request = streaming();
    let caller = world.caller("alice");
    let route = world.route();
    let mut arrival = crate::harness::arrival("r-1");
    arrival.deadline = Some(tokio::time::Instant::now() + Duration::from_secs(3));
    let mut answer = pin!(world.gateway.complete(&caller, &route, &request, &arrival));
    let (first, is_first) = tokio::select! {
        answer = answer.as_mut() => panic!("{answer:?}"),
        exchange = world.upstream.next() => (exchange, true),
        exchange = second.next() => (exchange, false),
    };
    let left = |exchange: &scripted_upstream::Exchange| -> u64 {
        exchange.headers["x-request-timeout-ms"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(left(&first), 3_000);
    assert_waits(answer.as_mut()).await;
    advance(Duration::from_millis(2_001)).await;
    let other = if is_first {
        &mut second
    } else {
        &mut world.upstream
    };
    let again = arrived(answer.as_mut(), other).await;
    assert!((990..1_000).contains(&left(&again)), "{}", left(&again));
    advance(Duration::from_millis(1_000)).await;
    let Some(Err(CompleteError::Failed(failure))) = at_once(answer).await else {
        panic!("its time is over")
    };
    assert_eq!(failure.status(), 504);
}

#[tokio::test]
async fn who_would_wait_beyond_its_deadline_is_refused_then_at_the_latest() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        setup.models[0].queue_length = 10;
        setup.policies[0].concurrency = None;
    })
    .await;
    let (_answer, _stream) = world.begin().await;
    let request = streaming();
    let caller = world.caller("bob");
    let route = world.route();
    let mut arrival = crate::harness::arrival("r-2");
    arrival.deadline = Some(tokio::time::Instant::now() + Duration::from_millis(500));
    let mut answer = pin!(world.gateway.complete(&caller, &route, &request, &arrival));
    assert_waits(answer.as_mut()).await;
    settle().await;
    advance(Duration::from_millis(502)).await;
    let refusal = refused(at_once(answer).await.expect("its time is over"));
    assert_eq!(refusal.code, RefusalCode::Saturated);
}
