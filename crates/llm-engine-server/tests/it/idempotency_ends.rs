//! How keyed requests end: what is stored and for how long, what a hang-up does, and cancelling.

use std::time::Duration;

use hyper::StatusCode;
use llm_engine_server::Drained;
use scripted_upstream::{Upstream, freeze, stay_frozen};
use serde_json::json;
use tokio::time::advance;

use crate::harness::{Answer, STREAM, SYNC, Server, chat, numbered, prompt};
use crate::idempotency::{Keyed, POLICY, REPLAYED, hang_up, start};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

/// What is left of the 1,000 output tokens, without using any up: this request never fits.
async fn tokens_left(server: &Server) -> String {
    let answer = Answer::read(server.post(SYNC, &prompt(1001)).await).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    answer.header("x-ratelimit-remaining-tokens").unwrap().to_owned()
}

async fn delete(server: &Server, api_key: &str, key: &str) -> Answer {
    let authorization = format!("Bearer {api_key}");
    let headers = [("authorization", authorization.as_str())];
    let target = format!("/v1/requests/{key}");
    Answer::read(server.send("DELETE", &target, &headers, None).await).await
}

/// Sends the request again, and answers it once more.
async fn assert_generates_again(request: &Keyed, upstream: &mut Upstream) {
    let (answer, exchange) = request.begun(upstream).await;
    exchange.answer_words(3, &["again"]);
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header(REPLAYED), None);
    assert!(answer.body.contains("again"));
}

#[tokio::test]
async fn what_the_upstream_refuses_or_fails_is_told_to_all_who_wait_and_the_key_is_free() {
    let _frozen = freeze();
    let error = json!({ "error": { "message": "no", "type": "x" } });
    for (says, headers, expected) in [
        (429, vec![("retry-after", "7")], 429),
        (400, vec![], 400),
        (500, vec![], 500),
    ] {
        let (server, mut upstream) = start("").await;
        let request = Keyed::sync(&server);
        let (first, exchange) = request.begun(&mut upstream).await;
        let second = request.sent().await;
        exchange.answer(says, &headers, error.clone());
        for (answer, replayed) in [(first, None), (second, Some("attached"))] {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status.as_u16(), expected);
            assert_eq!(answer.header(REPLAYED), replayed);
            if expected == 429 {
                assert_eq!(answer.retry_after(), 7 * SECOND);
            }
        }
        // Before that, nobody asks a deployment that has named a time.
        advance(7 * SECOND).await;
        assert_generates_again(&request, &mut upstream).await;
    }
}

#[tokio::test]
async fn a_refusal_by_a_policy_is_not_stored_and_its_booking_is_kept() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 60, window = '1m', burst = 1 }";
    let (server, mut upstream) = start(policy).await;
    let mut other = Keyed::sync(&server);
    other.headers.clear();
    let (answer, exchange) = other.begun(&mut upstream).await;
    exchange.answer_words(3, &["a"]);
    answer.await.unwrap();

    let request = Keyed::stream(&server);
    let refused = request.answer().await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json()["error"]["booked"], true);
    advance(refused.retry_after()).await;
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test]
async fn a_stream_that_ends_with_an_error_is_not_stored() {
    let _frozen = freeze();
    let mut chat_stream = chat();
    chat_stream["stream"] = true.into();
    for (target, body) in [(STREAM, prompt(60)), ("/v1/chat/completions", chat_stream)] {
        let (server, mut upstream) = start("").await;
        let request = Keyed::new(&server, target, body);
        let (first, exchange) = request.begun(&mut upstream).await;
        let stream = exchange.stream();
        stream.text("a");
        let second = request.sent().await;
        stream.cut();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
        assert_eq!(first.body, second.body);
        assert!(first.body.contains("\"error\":{"), "{}", first.body);
        assert_generates_again(&request, &mut upstream).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_stored_for_ten_minutes() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start("").await;
    let request = Keyed::sync(&server);
    assert_generates_again(&request, &mut upstream).await;
    advance(600 * SECOND - TICK).await;
    assert_eq!(request.answer().await.header(REPLAYED), Some("true"));
    advance(TICK).await;
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test]
async fn where_nothing_is_kept_only_running_work_is_shared() {
    let _frozen = freeze();
    let (server, mut upstream) = start("[replay]\nkeep = '0s'").await;
    let request = Keyed::sync(&server);
    let (first, exchange) = request.begun(&mut upstream).await;
    let second = request.sent().await;
    exchange.answer_words(3, &["a"]);
    assert_eq!(first.await.unwrap().body, second.await.unwrap().body);
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test]
async fn an_answer_that_had_to_make_room_is_not_generated_again() {
    let _frozen = freeze();
    let (server, mut upstream) = start("[replay]\nanswers = 1").await;
    let first = Keyed::sync(&server);
    assert_generates_again(&first, &mut upstream).await;
    let mut second = Keyed::new(&server, "/v1/chat/completions", chat());
    second.body["stream"] = true.into();
    second.headers[0].1 = "second";
    assert_generates_again(&second, &mut upstream).await;

    let gone = first.answer().await;
    assert_eq!(gone.status, StatusCode::CONFLICT);
    assert_eq!(gone.header("x-should-retry"), Some("false"));
    assert_eq!(gone.json()["error"]["code"], "answer_not_kept");
    assert!(gone.json()["detail"].as_str().unwrap().contains("make room"));
    assert_eq!(second.answer().await.header(REPLAYED), Some("true"));
    assert!(upstream.arrived().is_none());
}

#[tokio::test]
async fn memory_is_bounded_by_bytes_and_the_oldest_answers_go() {
    let _frozen = freeze();
    let (server, mut upstream) = start("[replay]\nmemory_bytes = 40_000").await;
    let word = "x".repeat(3_000);
    let statuses = async |count: usize| {
        let mut statuses = Vec::new();
        for number in 0..count {
            let key = format!("key-{number}");
            let headers = [("idempotency-key", key.as_str())];
            let answer = server.post_with(&headers, SYNC, &numbered(number)).await;
            statuses.push((number, answer.status, answer.header(REPLAYED).is_some()));
        }
        statuses
    };
    let answering = tokio::spawn(async move {
        for _ in 0..20 {
            upstream.next().await.answer_words(3, &[&word]);
        }
        upstream
    });
    statuses(20).await;
    let mut upstream = answering.await.unwrap();
    // About 5 kB each: the latest seven fit.
    for (number, status, replayed) in statuses(20).await {
        let is_kept = number >= 13;
        let expected = if is_kept {
            StatusCode::OK
        } else {
            StatusCode::CONFLICT
        };
        assert_eq!((status, replayed), (expected, is_kept), "{number}");
    }
    assert!(upstream.arrived().is_none());
}

#[tokio::test]
async fn an_answer_too_large_to_be_recorded_is_for_those_who_hear_it() {
    let _frozen = freeze();
    let (server, mut upstream) = start("[replay]\nanswer_bytes = 8_000").await;
    let request = Keyed::stream(&server).keep("300");
    let (first, exchange) = request.begun(&mut upstream).await;
    let second = request.sent().await;
    let stream = exchange.stream();
    for number in 0..100 {
        stream.text(&format!("word-{number} {}", "x".repeat(500)));
        server.settle().await;
    }
    let late = request.answer().await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    assert_eq!(late.json()["error"]["code"], "answer_not_kept");
    stream.finish("stop");
    stream.usage(3, 100);
    stream.done();
    for answer in [first, second] {
        let answer = answer.await.unwrap();
        assert_eq!(answer.events().len(), 101);
        assert!(answer.body.contains("word-0 ") && answer.body.contains("word-99 "));
    }
    assert_eq!(request.answer().await.status, StatusCode::CONFLICT);
    assert!(upstream.arrived().is_none());
}

#[tokio::test]
async fn an_answer_too_large_to_be_recorded_is_cancelled_when_nobody_hears_it() {
    let _frozen = freeze();
    let (server, mut upstream) = start("[replay]\nanswer_bytes = 8_000").await;
    let request = Keyed::stream(&server).keep("300");
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    stream.text("a");
    server.settle().await;
    hang_up(&server, first).await;
    stream.text(&"x".repeat(4_000));
    server.settle().await;
    stream.text(&"x".repeat(4_000));
    stream.hung_up().await;
    server.settle().await;
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test]
async fn a_hang_up_cancels_the_work_of_which_nobody_else_hears() {
    let _frozen = freeze();
    let (server, mut upstream) = start(POLICY).await;
    let request = Keyed::stream(&server);
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    stream.text("a");
    let second = request.sent().await;
    hang_up(&server, first).await;
    stream.text("b");
    server.settle().await;
    assert!(!second.is_finished(), "somebody is still there");
    hang_up(&server, second).await;
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(tokens_left(&server).await, "998");
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test]
async fn a_hang_up_before_the_first_token_cancels_too() {
    let _frozen = freeze();
    let (server, mut upstream) = start(POLICY).await;
    let request = Keyed::sync(&server).keep("0");
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    hang_up(&server, first).await;
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(tokens_left(&server).await, "1000");
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test(start_paused = true)]
async fn work_that_is_kept_goes_on_for_who_comes_again() {
    let _frozen = stay_frozen();
    for (target, comes_before_the_end) in [(SYNC, true), (SYNC, false), (STREAM, true), (STREAM, false)] {
        let (server, mut upstream) = start(POLICY).await;
        let request = Keyed::new(&server, target, prompt(60)).keep("30");
        let (first, exchange) = request.begun(&mut upstream).await;
        let stream = exchange.stream();
        stream.text("a");
        server.settle().await;
        hang_up(&server, first).await;
        advance(30 * SECOND - TICK).await;
        server.settle().await;
        stream.text("b");
        let attached = if comes_before_the_end {
            Some(request.sent().await)
        } else {
            None
        };
        stream.finish("stop");
        stream.usage(3, 2);
        stream.done();
        server.settle().await;
        let (answer, how) = match attached {
            Some(attached) => (attached.await.unwrap(), "attached"),
            None => (request.answer().await, "true"),
        };
        assert_eq!(
            (answer.status, answer.header(REPLAYED)),
            (StatusCode::OK, Some(how))
        );
        assert!(
            answer.body.contains('a') && answer.body.contains('b'),
            "{}",
            answer.body
        );
        assert_eq!(tokens_left(&server).await, "998");
        assert!(upstream.arrived().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_kept_for_too_long_is_cancelled_and_pays_for_what_was_generated() {
    let _frozen = stay_frozen();
    let (server, mut upstream) = start(POLICY).await;
    let request = Keyed::stream(&server).keep("30");
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    for word in ["a", "b", "c"] {
        stream.text(word);
    }
    server.settle().await;
    hang_up(&server, first).await;
    advance(30 * SECOND - TICK).await;
    server.settle().await;
    assert_eq!(tokens_left(&server).await, "940", "all 60 are still reserved");
    advance(TICK).await;
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(tokens_left(&server).await, "997");
    assert_generates_again(&request, &mut upstream).await;
}

#[tokio::test(start_paused = true)]
async fn a_held_request_that_is_kept_has_its_turn_and_one_that_is_not_gives_it_up() {
    let _frozen = stay_frozen();
    let policy =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1s' }\nhold = '30s'";
    for (keep, reaches_the_upstream) in [("30", true), ("0", false)] {
        let (server, mut upstream) = start(policy).await;
        let mut other = Keyed::sync(&server);
        other.headers.clear();
        assert_generates_again(&other, &mut upstream).await;
        let request = Keyed::sync(&server).keep(keep);
        let held = request.sent().await;
        hang_up(&server, held).await;
        advance(SECOND).await;
        server.settle().await;
        assert_eq!(upstream.arrived().is_some(), reaches_the_upstream);
    }
}

#[tokio::test]
async fn a_caller_can_cancel_what_runs_before_its_first_token_and_after() {
    let _frozen = freeze();
    let (server, mut upstream) = start(POLICY).await;
    let sync = Keyed::sync(&server).keep("300");
    let (first, exchange) = sync.begun(&mut upstream).await;
    let waiting = exchange.stream();
    let mut chat_stream = chat();
    chat_stream["stream"] = true.into();
    let streams = [
        Keyed::stream(&server),
        Keyed::new(&server, "/v1/chat/completions", chat_stream),
    ];
    let mut running = Vec::new();
    for request in &streams {
        let (answer, exchange) = request.begun(&mut upstream).await;
        let stream = exchange.stream();
        stream.text("a");
        running.push((answer, request.sent().await, stream));
    }

    assert_eq!(
        delete(&server, "other", "key").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        delete(&server, "nobody", "key").await.status,
        StatusCode::UNAUTHORIZED
    );
    let cancelled = delete(&server, "k", "key").await;
    assert_eq!(
        (cancelled.status, cancelled.json()),
        (StatusCode::OK, json!({ "cancelled": true }))
    );

    let first = first.await.unwrap();
    assert_eq!(first.status, StatusCode::CONFLICT);
    assert_eq!(first.json()["error"]["code"], "cancelled");
    assert_eq!(first.header("x-should-retry"), Some("false"));
    waiting.hung_up().await;
    for (answer, attached, stream) in running {
        for answer in [answer.await.unwrap(), attached.await.unwrap()] {
            let last = answer.events().pop().unwrap().to_owned();
            assert!(
                last.contains("\"error\":{") && last.contains("cancelled by its caller"),
                "{last}"
            );
            assert!(
                last.contains("409") || last.contains("\"code\":\"cancelled\""),
                "{last}"
            );
        }
        stream.hung_up().await;
    }
    server.settle().await;
    assert_eq!(tokens_left(&server).await, "998");
    assert_eq!(delete(&server, "k", "key").await.status, StatusCode::NOT_FOUND);
    assert_generates_again(&streams[0], &mut upstream).await;
}

#[tokio::test]
async fn a_cancel_that_comes_before_its_request_holds_for_a_while_if_it_asks_to() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let ahead = |seconds: &'static str| format!("key?ahead_seconds={seconds}");
    for wrong in ["61", "-1", "soon", ""] {
        let refused = delete(&server, "k", &ahead(wrong)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(
        delete(&server, "k", &ahead("5")).await.status,
        StatusCode::NOT_FOUND
    );
    for request in [Keyed::sync(&server).keep("300"), Keyed::stream(&server)] {
        let refused = request.answer().await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert_eq!(refused.json()["error"]["code"], "cancelled");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    assert!(upstream.arrived().is_none());
    advance(5 * SECOND).await;
    assert_generates_again(&Keyed::sync(&server), &mut upstream).await;
}

#[tokio::test]
async fn a_caller_can_have_a_stored_answer_forgotten() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let mut request = Keyed::sync(&server);
    request.headers[0].1 = "a/b%c?d";
    assert_generates_again(&request, &mut upstream).await;
    let forgotten = delete(&server, "k", "a%2Fb%25c%3Fd").await;
    assert_eq!(
        (forgotten.status, forgotten.json()),
        (StatusCode::OK, json!({ "cancelled": false }))
    );
    assert_eq!(
        delete(&server, "k", "a%2Fb%25c%3Fd").await.status,
        StatusCode::NOT_FOUND
    );
    assert_generates_again(&request, &mut upstream).await;
    for wrong in ["%FF", "a%20b"] {
        let refused = delete(&server, "k", wrong).await;
        assert_eq!(
            refused.json()["error"]["code"],
            "invalid_idempotency_key",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn draining_waits_for_work_that_is_kept_and_who_comes_again_finds_it() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let request = Keyed::stream(&server).keep("300");
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    stream.text("a");
    server.settle().await;
    hang_up(&server, first).await;
    server.shut_down();
    server.settle().await;
    let mut other = Keyed::sync(&server);
    other.headers[0].1 = "other";
    assert_eq!(other.answer().await.status, StatusCode::SERVICE_UNAVAILABLE);
    let again = request.sent().await;
    advance(29 * SECOND).await;
    stream.text("b");
    stream.finish("stop");
    stream.usage(3, 2);
    stream.done();
    let again = again.await.unwrap();
    assert_eq!(again.header(REPLAYED), Some("attached"));
    assert!(again.body.contains("\"finished\":true"));
    drop((request, other));
    let server = std::sync::Arc::into_inner(server).unwrap();
    assert_eq!(server.ended().await, Drained::Fully);
}

#[tokio::test]
async fn work_that_is_kept_is_cancelled_when_the_time_for_draining_is_over() {
    let _frozen = freeze();
    let (server, mut upstream) = start("").await;
    let request = Keyed::stream(&server).keep("300");
    let (first, exchange) = request.begun(&mut upstream).await;
    let stream = exchange.stream();
    stream.text("a");
    server.settle().await;
    hang_up(&server, first).await;
    server.shut_down();
    server.settle().await;
    advance(31 * SECOND).await;
    stream.hung_up().await;
    drop(request);
    let server = std::sync::Arc::into_inner(server).unwrap();
    assert_eq!(server.ended().await, Drained::CutOff);
}
