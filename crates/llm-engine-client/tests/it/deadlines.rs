use std::time::Duration;

use llm_engine_client::{ErrorKind, Reason};
use scripted_upstream::stay_frozen;
use serde_json::json;
use tokio::time::{Instant, advance};

use crate::harness::{Settle, builder, chat_call, refuse, scripted, succeed, watched};

#[tokio::test(start_paused = true)]
async fn a_call_stops_before_it_would_be_late() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let began = Instant::now();
    let (error, ()) = tokio::join!(client.call(chat_call().timeout(Duration::from_secs(10))), async {
        refuse(server.next().await, 10_000, true);
    });
    let error = error.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    // What is wrong is the refusal; why nothing more was done, the deadline.
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::Refused, Reason::Deadline)
    );
    assert_eq!(
        error.to_string(),
        "429 rate_limited: Policy per-key allows 60 requests per minute; gave up after 1 attempt over 0.0 s: \
         another attempt would be after the deadline"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_too_long_is_not_waited_for() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let (error, ()) = tokio::join!(client.call(chat_call()), async {
        server
            .next()
            .await
            .answer(429, &[("retry-after", "3600")], json!({ "detail": "tomorrow" }));
    });
    let error = error.unwrap_err();
    let hour = Duration::from_secs(3600);
    assert_eq!(
        (error.reason(), error.retry_after()),
        (Reason::HintTooLong(hour), Some(hour))
    );
}

#[tokio::test(start_paused = true)]
async fn the_running_attempt_is_cut_at_the_deadline() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let (call, mut waits) = watched(chat_call().timeout(Duration::from_secs(10)));
    let (error, held) = tokio::join!(client.call(call), async {
        refuse(server.next().await, 4_000, true);
        waits.pass().await;
        let held = server.next().await;
        advance(Duration::from_secs(6)).await;
        held
    });
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::Deadline, Reason::Deadline)
    );
    let attempts = error.attempts();
    assert_eq!(
        (attempts.len(), attempts[1].waited, attempts[1].took),
        (2, Duration::from_secs(4), Duration::from_secs(6))
    );
    assert!(
        error
            .to_string()
            .starts_with("the call was not done within 10.0 s; gave up after 2 attempts over 10.0 s")
    );
    // The server is told, for it may go on with what broke off.
    let key = held.headers["idempotency-key"].to_str().unwrap().to_owned();
    let cancel = server.next().await;
    assert_eq!(cancel.path, format!("/v1/requests/{key}"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_made_again() {
    let _frozen = stay_frozen();
    let (mut server, _) = scripted().await;
    let client = builder(&server)
        .attempt_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let (call, mut waits) = watched(chat_call());
    let (answer, ()) = tokio::join!(client.call(call), async {
        let held = server.next().await;
        advance(Duration::from_secs(5)).await;
        waits.pass().await;
        advance(Duration::from_millis(1)).await;
        succeed(server.next().await);
        drop(held);
    });
    assert_eq!(
        answer.unwrap().failed_attempts[0].failure,
        "there was no answer within 5.0 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_left_the_line_made_no_attempt() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let (mut server, client) = scripted().await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(chat_call()).await }
    });
    // From here on all others wait.
    refuse(server.next().await, 30_000, true);
    settle.settle().await;
    let second = tokio::spawn(async move { client.call(chat_call().timeout(Duration::from_secs(3))).await });
    // At once, and not when its time is over.
    let error = second.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Deadline, 0));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
    assert!(server.arrived().is_none());
    first.abort();
}
