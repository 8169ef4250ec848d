//! Quotas by the real clock, over HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, prompt};
use crate::server::{Server, Turn, model};

/// Checks a refusal by policy `p`, and returns when to come back.
fn refused(answer: &Answer) -> Duration {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "rate_limited");
    assert_eq!(error["policy"], "p");
    assert_eq!(error["exact"], true);
    answer.retry_after()
}

#[tokio::test]
async fn of_300_requests_at_once_on_100_a_minute_100_are_admitted_and_one_more_each_600_ms() {
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
    let refilled = usize::try_from(span.as_millis() / 600).unwrap();
    println!("admitted {} of 300; decided within {span:?}", admitted.len());
    assert!(admitted.len() >= 100, "{}", admitted.len());
    assert!(
        admitted.len() <= 100 + refilled,
        "{} within {span:?}",
        admitted.len()
    );
    for (refusal, _) in &refusals {
        assert!(refused(refusal) <= Duration::from_millis(600), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_lone_caller_that_comes_back_at_its_time_is_admitted_at_once_50_times_of_50() {
    let turn = Turn::take();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 20, window = '1s', burst = 1 }";
    let server = Server::start(&turn, &format!("{}{policy}", model("m", "")));
    let body = prompt("Hello", 1);
    let mut admitted = 0;
    for _ in 0..50 {
        // Of two at once, at least one is refused.
        let mut two: FuturesUnordered<_> = (0..2).map(|_| server.complete(&body)).collect();
        let wait = loop {
            let answer = two
                .next()
                .await
                .expect("two requests on a burst of 1: one is refused");
            if answer.status != StatusCode::OK {
                break refused(&answer);
            }
        };
        assert!(
            wait <= Duration::from_millis(50),
            "one unit refills in 50 ms, not in {wait:?}"
        );
        sleep(wait).await;
        let answer = server.complete(&body).await;
        admitted += u32::from(answer.status == StatusCode::OK);
        while two.next().await.is_some() {}
    }
    assert_eq!(admitted, 50);
}
