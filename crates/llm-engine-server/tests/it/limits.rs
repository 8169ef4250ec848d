use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};
use tokio::time::advance;

use crate::harness::{Answer, STREAM, SYNC, Server, piece, prompt, quick};

#[tokio::test]
async fn of_300_requests_at_once_on_100_a_minute_100_are_admitted_and_100_get_a_time_each() {
    const UNIT: Duration = Duration::from_millis(600);
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 100, window = '1m' }";
    let server = Server::start(&quick().await, &format!("concurrency = 300\n{policy}")).await;

    let answers = join_all((0..300).map(|_| server.complete())).await;

    let (admitted, mut refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!(admitted.len(), 100);
    refused.sort_by_key(|answer| answer.retry_after());
    let mut waits = HashSet::new();
    for (k, answer) in (1..).zip(refused) {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        let wait = answer.retry_after();
        assert!(waits.insert(wait), "{wait:?} is told twice");
        let body = answer.json();
        assert_eq!(body["error"]["code"], "rate_limited");
        assert_eq!(body["error"]["policy"], "p");
        // What begins to refill within a minute is there to be booked.
        let is_booked = k <= 101;
        assert_eq!(body["error"]["booked"], is_booked, "{k}");
        assert_eq!(body["error"]["exact"], is_booked, "{k}");
        if is_booked {
            assert_eq!(wait, UNIT * k);
        } else {
            assert!(wait > UNIT * 101, "{k}: {wait:?}");
        }
        let sentence =
            "Policy p allows 100 requests per minute, this request asks for 1 and 0 are left; try again in";
        let detail = body["detail"].as_str().unwrap();
        if is_booked {
            assert_eq!(detail, format!("{sentence} {}.{} s.", k * 6 / 10, k * 6 % 10));
        } else {
            assert!(detail.starts_with(&format!("{sentence} about ")), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_lone_caller_is_refused_one_tick_before_its_time_and_admitted_at_it_50_times_of_50() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 100, window = '1m', burst = 1 }";
    let server = Server::start(&quick().await, policy).await;
    let tick = Duration::from_nanos(1);
    assert_eq!(server.complete().await.status, StatusCode::OK);
    for _ in 0..50 {
        let refused = server.complete().await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        advance(refused.retry_after() - tick).await;
        assert_eq!(
            server.complete().await.status,
            StatusCode::TOO_MANY_REQUESTS,
            "one tick before its time"
        );
        advance(tick).await;
        assert_eq!(server.complete().await.status, StatusCode::OK, "at its time");
    }
}

#[tokio::test]
async fn of_150_streams_on_3000_output_tokens_50_fit_and_one_more_every_1_2_seconds() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\noutput_tokens = { limit = 3_000, window = '1m' }";
    let server = Server::start(upstream.url(), &format!("concurrency = 200\n{policy}")).await;
    let (sixty, five) = (prompt(60), prompt(5));

    // The upstream begins each answer and holds it open, so that all of them run at the same time.
    let requests = join_all((0..150).map(|_| server.post(STREAM, &sixty)));
    let mut running = Vec::new();
    let begin = async {
        for _ in 0..50 {
            let stream = upstream.next().await.stream();
            stream.text("a");
            running.push(stream);
        }
    };
    let (mut answers, ()) = tokio::join!(requests, begin);
    let admitted = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::OK)
        .count();
    assert_eq!(admitted, 50);
    assert!(upstream.arrived().is_none(), "nothing else went upstream");

    advance(Duration::from_millis(1199)).await;
    let early = Answer::read(server.post(STREAM, &sixty).await).await;
    assert_eq!(early.retry_after(), Duration::from_millis(1));
    advance(Duration::from_millis(1)).await;
    let (mut one_more, ()) = tokio::join!(server.post(STREAM, &sixty), async {
        let stream = upstream.next().await.stream();
        stream.text("a");
        running.push(stream);
    });
    assert_eq!(one_more.status(), StatusCode::OK);

    // Each used 20 of its 60 tokens: what comes back is there for others, up to the burst.
    for stream in running {
        stream.finish("stop");
        stream.usage(3, 20);
        stream.done();
    }
    for answer in answers
        .iter_mut()
        .filter(|answer| answer.status() == StatusCode::OK)
        .chain([&mut one_more])
    {
        while !piece(answer).await.contains("\"finished\":true") {}
    }
    server.settle().await;
    let (levels, ()) = tokio::join!(server.post(STREAM, &five), async {
        upstream.next().await.answer_words(3, &["a"]);
    });
    let levels = Answer::read(levels).await;
    // 3,000 − 51 · 20 used − 5 asked for now, + the 60 that refilled in 1.2 s.
    assert_eq!(levels.header("x-ratelimit-remaining-tokens"), Some("2035"));
}

#[tokio::test]
async fn a_request_that_never_fits_is_a_400_that_is_not_to_be_retried() {
    let policy = "[[policies]]\nname = 'p'\noutput_tokens = { limit = 100, window = '1m' }";
    let server = Server::start(&quick().await, policy).await;
    let answer = Answer::read(server.post(SYNC, &prompt(101)).await).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.json()["error"]["code"], "never_fits");
    assert_eq!(
        Answer::read(server.post(SYNC, &prompt(100)).await).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_refusal_by_one_policy_takes_nothing_from_the_others() {
    let _frozen = freeze();
    let policies = "[[policies]]\nname = 'few'\nrequests = { limit = 1, window = '1m' }\n\
                    [[policies]]\nname = 'many'\nrequests = { limit = 10, window = '1m' }";
    let server = Server::start(&quick().await, policies).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
    for _ in 0..3 {
        let refused = server.complete().await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            refused.header("ratelimit"),
            Some("\"few/requests\";r=0;t=60, \"many/requests\";r=9;t=6")
        );
    }
}

#[tokio::test]
async fn every_answer_says_how_the_quotas_stand() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key', 'model']\nrequests = { limit = 60, window = '1m', burst = 10 }\n\
                  tokens = { limit = 20_000, window = '1m' }\nconcurrency = 8";
    let server = Server::start(&quick().await, policy).await;
    let answer = server.complete().await;
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some(
            "\"p/requests\";q=60;w=60, \"p/tokens\";q=20000;w=60;qu=\"tokens\", \"p/concurrency\";q=8;qu=\"concurrent-requests\""
        )
    );
    // 3 prompt tokens and 2 generated have been settled by the time the answer is whole.
    assert_eq!(
        answer.header("ratelimit"),
        Some("\"p/requests\";r=9;t=1, \"p/tokens\";r=19995;t=1, \"p/concurrency\";r=8")
    );
    assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("60"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("9"));
    assert_eq!(answer.header("x-ratelimit-reset-requests"), Some("1s"));
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("20000"));
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("19995"));
    assert_eq!(answer.header("x-ratelimit-reset-tokens"), Some("15ms"));
}

#[tokio::test]
async fn callers_have_buckets_of_their_own() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1m' }";
    let server = Server::start(&quick().await, policy).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
    assert_eq!(server.complete().await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        server.post_as("other", SYNC, &prompt(5)).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn health_is_never_limited() {
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 1, window = '1h' }";
    let server = Server::start(&quick().await, policy).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
    assert_eq!(server.complete().await.status, StatusCode::TOO_MANY_REQUESTS);
    for path in ["/healthz", "/readyz", "/healthcheck"] {
        let answer = Answer::read(server.send("GET", path, &[], None).await).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
}
