use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use hyper::StatusCode;
use scripted_upstream::freeze;
use serde_json::Value;
use tokio::time::{Instant, advance};

use crate::harness::{Answer, SYNC, Server, numbered, prompt, quick};

const TICK: Duration = Duration::from_millis(1);
/// What 100 a minute take for one.
const UNIT: Duration = Duration::from_millis(600);

/// All three can be taken at once, then one in each unit of time.
const THREE_AT_ONCE: &str =
    "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 100, window = '1m', burst = 3 }";

/// A request that a client sends until it is answered, always in the same way.
struct Repeated {
    idempotency_key: Option<String>,
    body: Value,
}

impl Repeated {
    fn by_body(body: Value) -> Self {
        Self {
            idempotency_key: None,
            body,
        }
    }

    async fn send(&self, server: &Server) -> Answer {
        let key = self.idempotency_key.as_deref();
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        server.post_with(&headers, SYNC, &self.body).await
    }
}

fn assert_booked(answer: &Answer, wait: Duration) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.retry_after(), wait);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "rate_limited");
    assert_eq!((&error["booked"], &error["exact"]), (&true.into(), &true.into()));
}

/// Refuses these requests at the same instant, then lets each come back a tick before its time and at it.
async fn assert_each_is_told_a_time_of_its_own_at_which_it_is_admitted(requests: &[Repeated]) {
    let _frozen = freeze();
    let server = Server::start(&quick().await, THREE_AT_ONCE).await;
    for number in 1000..1003 {
        let answer = Repeated::by_body(numbered(number)).send(&server).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    for (before, request) in (1..).zip(requests) {
        assert_booked(&request.send(&server).await, before * UNIT);
    }
    for request in requests {
        advance(UNIT - TICK).await;
        assert_booked(&request.send(&server).await, TICK);
        advance(TICK).await;
        assert_eq!(request.send(&server).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn who_is_refused_at_the_same_instant_comes_back_at_times_a_unit_apart_and_is_admitted() {
    let requests: Vec<_> = (0..50)
        .map(|number| Repeated::by_body(numbered(number)))
        .collect();
    assert_each_is_told_a_time_of_its_own_at_which_it_is_admitted(&requests).await;
}

#[tokio::test]
async fn a_time_is_kept_for_the_idempotency_key_whatever_the_body_says() {
    let request = |number: usize| Repeated {
        idempotency_key: Some(format!("key-{number}")),
        body: prompt(5),
    };
    let requests: Vec<_> = (0..50).map(request).collect();
    assert_each_is_told_a_time_of_its_own_at_which_it_is_admitted(&requests).await;
}

#[tokio::test]
async fn equal_requests_get_as_many_times_as_there_are_of_them() {
    let requests: Vec<_> = (0..50).map(|_| Repeated::by_body(prompt(5))).collect();
    assert_each_is_told_a_time_of_its_own_at_which_it_is_admitted(&requests).await;
}

#[tokio::test]
async fn the_same_idempotency_key_is_told_the_same_time_however_often_it_asks() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, THREE_AT_ONCE).await;
    for number in 0..3 {
        Repeated::by_body(numbered(number)).send(&server).await;
    }
    for number in 0..5 {
        // Not even the body is the same.
        let request = Repeated {
            idempotency_key: Some("same".to_owned()),
            body: numbered(number),
        };
        assert_booked(&request.send(&server).await, UNIT);
    }
    let next = Repeated::by_body(prompt(5)).send(&server).await;
    assert_booked(&next, 2 * UNIT);
}

#[tokio::test]
async fn who_comes_without_a_time_does_not_take_the_place_of_one_whose_time_it_is() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 100, window = '1m', burst = 1 }";
    let server = Server::start(&quick().await, policy).await;
    let waiting = Repeated::by_body(numbered(0));
    assert_eq!(server.complete().await.status, StatusCode::OK);
    assert_booked(&waiting.send(&server).await, UNIT);
    advance(UNIT).await;
    for key in ["other", "k"] {
        let fresh = Answer::read(server.post_as(key, SYNC, &numbered(1)).await).await;
        assert_eq!(fresh.status, StatusCode::TOO_MANY_REQUESTS, "{key}");
        assert!(fresh.retry_after() > Duration::ZERO);
    }
    assert_eq!(waiting.send(&server).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_time_belongs_to_its_caller_and_its_route() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 100, window = '1m', burst = 1 }";
    let server = Server::start(&quick().await, policy).await;
    let waiting = Repeated {
        idempotency_key: Some("same".to_owned()),
        body: prompt(5),
    };
    assert_eq!(server.complete().await.status, StatusCode::OK);
    assert_booked(&waiting.send(&server).await, UNIT);
    advance(UNIT).await;
    let headers = [
        ("authorization", "Bearer other"),
        ("content-type", "application/json"),
        ("idempotency-key", "same"),
    ];
    let of_another = server
        .send("POST", SYNC, &headers, Some(&prompt(5).to_string()))
        .await;
    assert_eq!(of_another.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(waiting.send(&server).await.status, StatusCode::OK);
}

/// What it took until each of a crowd of clients had its answer, all of which keep to what they are told.
#[derive(Debug)]
struct Crowd {
    calls: usize,
    /// Requests that were refused again when they came back.
    refused_twice: usize,
    took: Duration,
}

/// More at the same time would need more sockets than there may be.
const AT_ONCE: usize = 64;

async fn crowd(server: &Server, clients: usize) -> Crowd {
    let begun = Instant::now();
    let mut crowd = Crowd {
        calls: 0,
        refused_twice: 0,
        took: Duration::ZERO,
    };
    let mut coming = BTreeMap::from([(begun, (0..clients).collect::<Vec<usize>>())]);
    while let Some((at, now)) = coming.pop_first() {
        advance(at - Instant::now()).await;
        crowd.took = begun.elapsed();
        let answers = stream::iter(now).map(async |number| {
            let answer = Repeated::by_body(numbered(number)).send(server).await;
            (number, answer)
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        crowd.calls += answers.len();
        for (number, answer) in answers {
            if answer.status == StatusCode::OK {
                continue;
            }
            crowd.refused_twice += usize::from(at > begun);
            let later = at + answer.retry_after();
            coming.entry(later).or_default().push(number);
        }
    }
    crowd
}

#[tokio::test]
async fn of_5000_requests_at_once_on_100_a_second_each_is_admitted_when_it_comes_back() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 100, window = '1s' }";
    let server = Server::start(&quick().await, &format!("concurrency = 300\n{policy}")).await;
    let crowd = crowd(&server, 5000).await;
    assert_eq!(crowd.refused_twice, 0, "{crowd:?}");
    assert_eq!(crowd.calls, 5000 + 4900, "{crowd:?}");
    // 100 at once, then 100 a second.
    assert_eq!(crowd.took, Duration::from_secs(49), "{crowd:?}");
}

#[tokio::test]
async fn of_100_requests_at_once_on_10_a_second_each_needs_two_calls_at_most() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 10, window = '1s', burst = 1 }";
    let server = Server::start(&quick().await, &format!("concurrency = 300\n{policy}")).await;
    let crowd = crowd(&server, 100).await;
    assert_eq!(crowd.calls, 100 + 99, "{crowd:?}");
    assert_eq!(crowd.took, Duration::from_millis(9_900), "{crowd:?}");
}
