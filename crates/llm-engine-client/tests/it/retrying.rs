use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine_client::{ErrorKind, Fault, Reason, Retry, Waiting};
use scripted_upstream::stay_frozen;
use serde_json::json;
use tokio::time::{Instant, advance};

use crate::harness::{builder, chat_call, header, refuse, scripted, succeed, two_seconds, watched};

#[tokio::test(start_paused = true)]
async fn a_booked_time_is_kept_exactly_and_the_call_is_known_again() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let began = Instant::now();
    let (call, mut waits) = watched(chat_call());
    let (answer, ()) = tokio::join!(client.call(call), async {
        let first = server.next().await;
        let key = header(&first, "idempotency-key").unwrap().to_owned();
        assert_eq!(header(&first, "x-llm-engine-attempt"), Some("1"));
        refuse(first, 1430, true);
        assert_eq!(waits.pass().await, Duration::from_millis(1430));
        let second = server.next().await;
        assert_eq!(began.elapsed(), Duration::from_millis(1430));
        assert_eq!(header(&second, "idempotency-key"), Some(key.as_str()));
        assert_eq!(header(&second, "x-llm-engine-attempt"), Some("2"));
        assert_eq!(header(&second, "x-request-timeout-ms"), Some("298570"));
        succeed(second);
    });
    let answer = answer.unwrap();
    assert_eq!(answer.attempts(), 2);
    let failed = &answer.failed_attempts[0];
    assert_eq!(
        failed.failure,
        "429 rate_limited: Policy per-key allows 60 requests per minute"
    );
    assert!(server.arrived().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_time_that_others_were_told_as_well_is_the_least_wait() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let (call, mut waits) = watched(chat_call());
    let (answer, wait) = tokio::join!(client.call(call), async {
        server
            .next()
            .await
            .answer(429, &[("retry-after", "7")], json!({}));
        let wait = waits.pass().await;
        // Timers count whole milliseconds.
        advance(Duration::from_millis(1)).await;
        succeed(server.next().await);
        wait
    });
    answer.unwrap();
    assert!((7.0..=67.0).contains(&wait.as_secs_f64()), "{wait:?}");
}

#[tokio::test]
async fn what_would_fail_again_is_not_tried_again() {
    let (mut server, client) = scripted().await;
    let quota = json!({ "error": { "code": "insufficient_quota", "message": "spent", "type": "insufficient_quota" } });
    for (status, headers, body, kind) in [
        (400, &[][..], json!({ "detail": "no" }), ErrorKind::Invalid),
        (401, &[], json!({ "detail": "no" }), ErrorKind::Unauthorized),
        (402, &[], json!({ "detail": "no" }), ErrorKind::BudgetSpent),
        (404, &[], json!({ "detail": "no" }), ErrorKind::NotFound),
        (409, &[], json!({}), ErrorKind::Invalid),
        (422, &[], json!({ "detail": [] }), ErrorKind::Invalid),
        (501, &[], json!({ "detail": "no" }), ErrorKind::Server),
        (307, &[("location", "/")], json!({}), ErrorKind::Unexpected),
        (
            503,
            &[("x-should-retry", "false"), ("retry-after", "1")],
            json!({}),
            ErrorKind::Server,
        ),
        (429, &[("retry-after", "1")], quota, ErrorKind::BudgetSpent),
    ] {
        let (error, ()) = tokio::join!(client.call(chat_call()), async {
            server.next().await.answer(status, headers, body);
        });
        let error = error.unwrap_err();
        assert_eq!(
            (error.status(), error.kind(), error.reason()),
            (Some(status), kind, Reason::Permanent)
        );
        assert!(!error.is_transient());
        assert_eq!(error.attempts().len(), 1);
        assert!(server.arrived().is_none(), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_until_the_attempts_are_used_up() {
    let _frozen = stay_frozen();
    let (mut server, _) = scripted().await;
    let client = builder(&server).retry(two_seconds()).build().unwrap();
    let (call, mut waits) = watched(chat_call());
    let (error, ()) = tokio::join!(client.call(call), async {
        server.next().await.answer(500, &[], json!({ "detail": "oh" }));
        assert_eq!(waits.pass().await, Duration::from_secs(2));
        // No answer: the connection breaks.
        drop(server.next().await);
        waits.pass().await;
        server.next().await.answer(
            409,
            &[("x-should-retry", "true")],
            json!({ "detail": "at work on it" }),
        );
    });
    let error = error.unwrap_err();
    assert_eq!(error.reason(), Reason::Stopped);
    let text = error.to_string();
    assert_eq!(
        text,
        "409: at work on it; gave up after 3 attempts over 4.0 s: no attempts are left"
    );
    let attempts = error.attempts();
    assert_eq!(attempts[0].failure, "500: oh");
    assert!(
        attempts[1]
            .failure
            .starts_with("there was no whole answer from http://127.0.0.1:"),
        "{attempts:?}"
    );
    assert_eq!(attempts[2].waited, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_call_can_have_fewer_attempts_than_the_client() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    for call in [chat_call().max_attempts(1), chat_call().retry(Retry::never())] {
        let (error, ()) = tokio::join!(client.call(call), async {
            server.next().await.answer(500, &[], json!({}));
        });
        assert_eq!(error.unwrap_err().reason(), Reason::Stopped);
        assert!(server.arrived().is_none());
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_full() {
    let (mut server, client) = scripted().await;
    let seen = Arc::new(Mutex::new(String::new()));
    let told = seen.clone();
    let call = chat_call()
        .timeout(Duration::from_secs(1))
        .on_wait(Arc::new(move |waiting: &Waiting<'_>| {
            *told.lock().unwrap() = format!("{waiting:?}");
        }));
    let (error, ()) = tokio::join!(client.call(call), async {
        refuse(server.next().await, 1, true);
        refuse(server.next().await, 2000, true);
    });
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::Refused, Fault::Caller));
    assert_eq!(
        (error.status(), error.code(), error.policy()),
        (Some(429), Some("rate_limited"), Some("per-key"))
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    assert!(error.is_transient());
    assert!(!format!("{error} {error:?}").contains("secret-key"));
    // The server's sentence to the letter; what is displayed may go on after it.
    assert_eq!(error.message(), "Policy per-key allows 60 requests per minute.");
    let seen = seen.lock().unwrap();
    let expected = "Waiting { attempt: 1, wait: 1ms, status: Some(429), code: Some(\"rate_limited\"), \
        policy: Some(\"per-key\"), message: \"Policy per-key allows 60 requests per minute.\", is_booked: true }";
    assert_eq!(*seen, expected);
}
