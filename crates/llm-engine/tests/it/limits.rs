//! Quotas by the real clock, over HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, prompt};
use crate::server::{Server, Turn, model};

/// When to come back after a refusal by policy `p`, and whether that time is kept for the request.
fn refused(answer: &Answer) -> (Duration, bool) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "rate_limited");
    assert_eq!(error["policy"], "p");
    assert_eq!(
        error["exact"], error["booked"],
        "nothing but a booked time is sure here"
    );
    (answer.retry_after(), error["booked"].as_bool().unwrap())
}

#[tokio::test]
async fn of_300_requests_at_once_on_100_a_minute_100_are_admitted_and_100_get_a_time_each_600_ms_apart() {
    const UNIT: Duration = Duration::from_millis(600);
    let turn = Turn::take();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 100, window = '1m', burst = 100 }";
    let queue = "concurrency = 8\ncontext_tokens = 256\nqueue_wait = '60s'";
    let server = Server::start(&turn, &format!("{}{policy}", model("m", queue)));
    let body = prompt("Hello", 1);

    let begun = Instant::now();
    let answers = join_all((0..300).map(async |_| {
        let answer = server.complete(&body).await;
        (answer, begun.elapsed())
    }));
    let (admitted, refusals): (Vec<_>, Vec<_>) = answers
        .await
        .into_iter()
        .partition(|(answer, _)| answer.status == StatusCode::OK);

    // A refusal is answered when it is decided; by the last one everything is.
    let span = refusals.iter().map(|(_, after)| *after).max().unwrap();
    let refilled = u32::try_from(span.as_millis() / UNIT.as_millis()).unwrap();
    println!("admitted {} of 300; decided within {span:?}", admitted.len());
    let admitted = u32::try_from(admitted.len()).unwrap();
    assert!(
        (100..=100 + refilled).contains(&admitted),
        "{admitted} within {span:?}"
    );
    let (mut booked, others): (Vec<_>, Vec<_>) = refusals
        .iter()
        .map(|(answer, _)| refused(answer))
        .partition(|(_, is_booked)| *is_booked);
    // A caller's share of a quota for all: half of what it gives at once and within a minute.
    assert_eq!(booked.len(), 100);
    booked.sort();
    for (k, (wait, _)) in (1..).zip(&booked) {
        let due = UNIT * k;
        let latest = due + UNIT * refilled + Duration::from_millis(1);
        assert!(
            *wait <= latest && *wait + span >= due,
            "{k}: {wait:?} within {span:?}"
        );
    }
    let last = booked.last().unwrap().0;
    assert!(others.iter().all(|(wait, _)| *wait + span > last), "{others:?}");
}

#[tokio::test]
async fn whoever_is_refused_and_comes_back_at_its_time_is_admitted_at_once_in_50_rounds_of_50() {
    const UNIT: Duration = Duration::from_millis(50);
    let turn = Turn::take();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 20, window = '1s', burst = 1 }";
    let server = Server::start(&turn, &format!("{}{policy}", model("m", "")));
    let body = prompt("Hello", 1);
    let mut retried = 0;
    for _ in 0..50 {
        let two = join_all((0..2).map(async |_| {
            let answer = server.complete(&body).await;
            if answer.status == StatusCode::OK {
                return None;
            }
            let (wait, is_booked) = refused(&answer);
            assert!(is_booked);
            sleep(wait).await;
            let again = server.complete(&body).await;
            assert_eq!(again.status, StatusCode::OK, "{again:?}");
            Some(wait)
        }));
        let mut waits: Vec<Duration> = two.await.into_iter().flatten().collect();
        assert!(!waits.is_empty(), "of two at once on a burst of 1 one is refused");
        waits.sort();
        for (k, wait) in (1..).zip(&waits) {
            assert!(
                *wait <= UNIT * k,
                "one unit refills in {UNIT:?}, not in {waits:?}"
            );
        }
        retried += waits.len();
    }
    assert!(retried >= 50);
}
