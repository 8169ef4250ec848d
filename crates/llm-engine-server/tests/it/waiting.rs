use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};
use tokio::time::advance;

use crate::harness::{Answer, Server};

#[tokio::test]
async fn of_64_callers_on_a_concurrency_of_4_each_is_answered_or_refused_with_saturated_within_2_seconds() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "concurrency = 4\nqueue_wait = '2s'").await;

    let callers = join_all((0..64).map(|_| server.complete()));
    let script = async {
        let mut running = Vec::new();
        for _ in 0..4 {
            running.push(upstream.next().await);
        }
        server.settle().await;
        assert!(upstream.arrived().is_none(), "the others wait here, not upstream");
        // Half of the running end in time for two of the waiting.
        advance(Duration::from_millis(1900)).await;
        for exchange in running.drain(..2) {
            exchange.answer_words(3, &["a"]);
        }
        for _ in 0..2 {
            running.push(upstream.next().await);
        }
        advance(Duration::from_millis(200)).await;
        server.settle().await;
        for exchange in running {
            exchange.answer_words(3, &["a"]);
        }
    };
    let (answers, ()) = tokio::join!(callers, script);

    let answered = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::OK)
        .count();
    assert_eq!(answered, 6);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.json()["error"]["code"], "saturated");
        assert_eq!(answer.json()["error"]["exact"], false);
        assert!(answer.retry_after() > Duration::ZERO);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "concurrency = 1\nqueue_length = 0").await;
    let (first, second) = tokio::join!(server.complete(), async {
        let exchange = upstream.next().await;
        let second = server.complete().await;
        exchange.answer_words(3, &["a"]);
        second
    });
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(second.json()["error"]["code"], "saturated");
}

#[tokio::test]
async fn a_saturated_model_gives_the_quota_back() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 2, window = '1h' }";
    let server = Server::start(
        upstream.url(),
        &format!("concurrency = 1\nqueue_length = 0\n{policy}"),
    )
    .await;
    tokio::join!(server.complete(), async {
        let exchange = upstream.next().await;
        let saturated = server.complete().await;
        assert_eq!(saturated.header("x-ratelimit-remaining-requests"), Some("1"));
        exchange.answer_words(3, &["a"]);
    });
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_leaves_the_queue() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(
        upstream.url(),
        "concurrency = 1\nqueue_length = 1\nqueue_wait = '1h'",
    )
    .await;
    let (first, second) = tokio::join!(server.complete(), async {
        let exchange = upstream.next().await;
        // The one place in the queue is taken and left again, twice.
        for _ in 0..2 {
            let waiting = server.complete();
            tokio::select! {
                answer = waiting => panic!("it should be waiting, and got {answer:?}"),
                () = server.settle() => {}
            }
            server.settle().await;
        }
        let (second, ()) = tokio::join!(server.complete(), async {
            server.settle().await;
            exchange.answer_words(3, &["a"]);
            upstream.next().await.answer_words(3, &["a"]);
        });
        second
    });
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    let _: Answer = first;
}
