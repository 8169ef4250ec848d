use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Upstream, stay_frozen};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::advance;

use crate::harness::{Answer, SYNC, Server, numbered, prompt};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

const ONE_A_SECOND: &str = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1s' }";

/// A server whose upstream waits for the test.
async fn start(more: &str) -> (Arc<Server>, Upstream) {
    let upstream = Upstream::start().await;
    let policy = format!("{ONE_A_SECOND}\n{more}");
    let server = Server::start(upstream.url(), &policy).await;
    (Arc::new(server), upstream)
}

/// Sends a request of caller `k` and lets it arrive.
async fn send(
    server: &Arc<Server>,
    headers: &[(&'static str, &'static str)],
    body: Value,
) -> JoinHandle<Answer> {
    let (sender, headers) = (Arc::clone(server), headers.to_vec());
    let answer = tokio::spawn(async move { sender.post_with(&headers, SYNC, &body).await });
    server.settle().await;
    answer
}

async fn is_held(server: &Server, answer: &JoinHandle<Answer>, upstream: &mut Upstream) -> bool {
    server.settle().await;
    !answer.is_finished() && upstream.arrived().is_none()
}

/// Hangs up.
async fn abandon(server: &Server, answer: JoinHandle<Answer>) {
    answer.abort();
    assert!(answer.await.unwrap_err().is_cancelled());
    server.settle().await;
}

/// Takes what can be taken at once.
async fn use_up(server: &Arc<Server>, upstream: &mut Upstream) {
    let answer = send(server, &[], numbered(1000)).await;
    upstream.next().await.answer_words(3, &["a"]);
    assert_eq!(answer.await.unwrap().status, StatusCode::OK);
}

/// Twenty requests where one fits in each second: they reach the upstream one by one, each at its second, and all are
/// answered.
async fn assert_all_are_answered(
    more: &str,
    headers: &[(&'static str, &'static str)],
    body: impl Fn(usize) -> Value,
) -> Vec<Value> {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start(more).await;
    use_up(&server, &mut upstream).await;
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(send(&server, headers, body(number)).await);
    }
    let mut prompts = Vec::new();
    for _ in 0..20 {
        advance(SECOND - TICK).await;
        server.settle().await;
        assert!(upstream.arrived().is_none(), "a tick before its time");
        advance(TICK).await;
        let exchange = upstream.next().await;
        prompts.push(exchange.body["prompt"].clone());
        exchange.answer_words(3, &["a"]);
        server.settle().await;
        assert!(upstream.arrived().is_none(), "one at a time");
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    prompts
}

fn in_order() -> Vec<Value> {
    (0..20).map(|number| numbered(number)["prompt"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn where_a_policy_holds_nobody_is_refused_and_all_get_their_turn_in_order() {
    let prompts = assert_all_are_answered("hold = '30s'", &[], numbered).await;
    assert_eq!(prompts, in_order());
}

#[tokio::test(start_paused = true)]
async fn who_prefers_to_wait_is_held_where_no_policy_says_so() {
    let prompts = assert_all_are_answered("", &[("prefer", "wait=30")], numbered).await;
    assert_eq!(prompts, in_order());
}

#[tokio::test(start_paused = true)]
async fn equal_requests_are_held_each_for_a_time_of_its_own() {
    assert_all_are_answered("hold = '30s'", &[], |_| prompt(5)).await;
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_longer_than_it_prefers_is_refused_at_once_and_its_time_is_kept() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("").await;
    use_up(&server, &mut upstream).await;
    let prefer = [("prefer", "wait=2")];
    let first = send(&server, &prefer, numbered(1)).await;
    let second = send(&server, &prefer, numbered(2)).await;
    let third = send(&server, &prefer, numbered(3)).await;
    assert!(is_held(&server, &first, &mut upstream).await && is_held(&server, &second, &mut upstream).await);
    let third = third.await.unwrap();
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.retry_after(), 3 * SECOND);
    assert_eq!(third.json()["error"]["booked"], true);

    let mut answers = vec![first, second];
    for second in 1..=3 {
        advance(SECOND).await;
        if second == 3 {
            answers.push(send(&server, &[], numbered(3)).await);
        }
        let exchange = upstream.next().await;
        assert_eq!(exchange.body["prompt"], format!("p{second}"));
        exchange.answer_words(3, &["a"]);
        server.settle().await;
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_that_holds_shorter_decides_and_one_that_does_not_hold_refuses() {
    let _frozen = stay_frozen();
    for (hold, held) in [("hold = '2s'", true), ("", false)] {
        let second = format!(
            "hold = '30s'\n[[policies]]\nname = 'q'\nper = ['key']\nrequests = {{ limit = 1, window = '2s' }}\n{hold}"
        );
        let (server, mut upstream) = start(&second).await;
        use_up(&server, &mut upstream).await;
        let first = send(&server, &[], numbered(1)).await;
        assert_eq!(is_held(&server, &first, &mut upstream).await, held, "{hold}");
        let next = send(&server, &[], numbered(2)).await;
        assert_eq!(next.await.unwrap().retry_after(), 4 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_caller_that_hangs_up_is_there_for_the_next() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("").await;
    use_up(&server, &mut upstream).await;
    let prefer = [("prefer", "wait=30")];
    let leaving = send(&server, &prefer, numbered(1)).await;
    assert!(is_held(&server, &leaving, &mut upstream).await);
    let control = send(&server, &[], numbered(2)).await.await.unwrap();
    assert_eq!(control.retry_after(), 2 * SECOND);
    abandon(&server, leaving).await;

    advance(SECOND).await;
    server.settle().await;
    assert!(upstream.arrived().is_none(), "nobody is there to be answered");
    let early = send(&server, &[], numbered(2)).await;
    upstream.next().await.answer_words(3, &["a"]);
    assert_eq!(early.await.unwrap().status, StatusCode::OK, "the place is used");
}

#[tokio::test(start_paused = true)]
async fn as_if_who_hung_up_had_never_come_the_next_is_told_its_time() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("").await;
    use_up(&server, &mut upstream).await;
    let prefer = [("prefer", "wait=30")];
    for number in 0..3 {
        let leaving = send(&server, &prefer, numbered(number)).await;
        assert!(is_held(&server, &leaving, &mut upstream).await);
        abandon(&server, leaving).await;
    }
    let next = send(&server, &[], numbered(3)).await.await.unwrap();
    assert_eq!(next.retry_after(), SECOND);
    assert_eq!(next.json()["error"]["booked"], true);
}

#[tokio::test(start_paused = true)]
async fn of_equal_requests_that_are_held_one_that_hangs_up_takes_no_other_s_time() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("hold = '30s'").await;
    use_up(&server, &mut upstream).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(send(&server, &[], prompt(5)).await);
    }
    abandon(&server, answers.remove(1)).await;
    for second in 1..=4 {
        advance(SECOND).await;
        server.settle().await;
        while let Some(exchange) = upstream.arrived() {
            exchange.answer_words(3, &["a"]);
        }
        server.settle().await;
        let answered = answers.iter().filter(|answer| answer.is_finished()).count();
        assert!(answered >= second - 1, "{answered} after {second} s");
    }
    advance(SECOND).await;
    server.settle().await;
    while let Some(exchange) = upstream.arrived() {
        exchange.answer_words(3, &["a"]);
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_held_when_the_time_for_draining_is_over_is_sent_elsewhere() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("hold = '60s'").await;
    use_up(&server, &mut upstream).await;
    let mut answers = Vec::new();
    for number in 0..40 {
        answers.push(send(&server, &[], numbered(number)).await);
    }
    let half = SECOND / 2;
    advance(half).await;
    server.shut_down();
    server.settle().await;
    for _ in 0..30 {
        advance(half).await;
        upstream.next().await.answer_words(3, &["a"]);
        server.settle().await;
        advance(half).await;
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        if number < 30 {
            assert_eq!(answer.status, StatusCode::OK, "{number}");
        } else {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{number}");
            assert_eq!(answer.json()["error"]["code"], "draining");
            assert!(answer.retry_after() > Duration::ZERO);
        }
    }
}
