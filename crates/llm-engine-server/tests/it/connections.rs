//! Connections on which little or nothing happens, and many of them.

use std::time::Duration;

use scripted_upstream::{Upstream, freeze};
use tokio::time::advance;

use crate::harness::{SYNC, Server, prompt, quick};
use crate::raw::{Raw, post};

const SECOND: Duration = Duration::from_secs(1);

/// Lets so many seconds pass, one after the other, as the server looks at its connections.
async fn pass(server: &Server, seconds: u64) {
    for _ in 0..seconds {
        advance(SECOND).await;
        server.settle().await;
    }
}

#[tokio::test]
async fn a_connection_that_never_says_anything_is_closed_after_75_s() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, "").await;
    let mut silent = Raw::open(&server).await;
    pass(&server, 73).await;
    silent.hear(&server).await;
    assert!(!silent.is_closed);
    pass(&server, 5).await;
    silent.hear(&server).await;
    assert!(silent.is_closed && silent.statuses().is_empty());
}

#[tokio::test]
async fn a_connection_is_kept_for_75_s_after_its_last_answer() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, "").await;
    let mut kept = Raw::open(&server).await;
    for round in 1..=3 {
        kept.say("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
        kept.hear(&server).await;
        assert_eq!(kept.statuses().len(), round);
        pass(&server, 73).await;
        kept.hear(&server).await;
        assert!(!kept.is_closed);
    }
    pass(&server, 5).await;
    kept.hear(&server).await;
    assert!(kept.is_closed);
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_10_s() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, "").await;
    let mut slow = Raw::open(&server).await;
    pass(&server, 30).await;
    for byte in b"GET /heal" {
        slow.say([*byte]).await;
        pass(&server, 1).await;
        slow.hear(&server).await;
        assert!(!slow.is_closed);
    }
    pass(&server, 4).await;
    slow.hear(&server).await;
    assert!(slow.is_closed && slow.statuses().is_empty());
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_408_after_60_s() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, "").await;
    let mut slow = Raw::open(&server).await;
    slow.say(format!(
        "POST {SYNC} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\ncontent-length: 1000\r\n\r\n"
    ))
    .await;
    for _ in 0..59 {
        slow.say("x").await;
        pass(&server, 1).await;
        slow.hear(&server).await;
        assert!(slow.statuses().is_empty() && !slow.is_closed);
    }
    pass(&server, 5).await;
    slow.hear(&server).await;
    assert_eq!(slow.statuses(), [408], "{} {}", slow.heard(), slow.is_closed);
    assert!(slow.heard().contains("body_too_slow"), "{}", slow.heard());
    pass(&server, 80).await;
    slow.hear(&server).await;
    assert!(slow.is_closed);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up_after_a_minute_and_its_request_ends() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let mut deaf = Raw::open(&server).await;
    let body = r#"{"model": "m", "prompt": "p", "stream": true}"#;
    deaf.say(post("/v1/completions", body)).await;
    let stream = upstream.next().await.stream();
    // More than all buffers on the way hold.
    let long = "x".repeat(100_000);
    for _ in 0..200 {
        stream.text(&long);
    }
    pass(&server, 58).await;
    assert_eq!(server.app.gateway.resolve("m").unwrap().running(), 1);
    pass(&server, 5).await;
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(server.app.gateway.resolve("m").unwrap().running(), 0);
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer_than_an_idle_connection() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let mut caller = Raw::open(&server).await;
    caller.say(post(SYNC, &prompt(5).to_string())).await;
    let exchange = upstream.next().await;
    pass(&server, 100).await;
    exchange.answer_words(3, &["a"]);
    server.settle().await;
    caller.hear(&server).await;
    assert_eq!(caller.statuses(), [200]);
}

#[tokio::test]
async fn silent_connections_keep_nobody_out_however_many_they_are() {
    let _frozen = freeze();
    let config = crate::harness::config(&quick().await, "").replacen("listen", "connections = 8\nlisten", 1);
    let server = Server::with_config(&config).await;
    // This one has asked before, and is kept among the silent ones.
    let mut kept = Raw::open(&server).await;
    kept.say("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    kept.hear(&server).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::open(&server).await);
        assert_eq!(server.complete().await.status, 200);
    }
    let mut open = 0;
    for raw in &mut silent {
        raw.hear(&server).await;
        open += usize::from(!raw.is_closed);
    }
    assert!(open <= 8, "{open} are open");
    kept.say("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    kept.hear(&server).await;
    assert_eq!(kept.statuses(), [200, 200]);
}

#[tokio::test]
async fn a_connection_with_a_request_is_not_closed_for_a_new_one() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let config = crate::harness::config(upstream.url(), "").replacen("listen", "connections = 2\nlisten", 1);
    let server = Server::with_config(&config).await;
    let request = post(SYNC, &prompt(5).to_string());
    let mut callers = Vec::new();
    let mut exchanges = Vec::new();
    for _ in 0..2 {
        let mut caller = Raw::open(&server).await;
        caller.say(&request).await;
        exchanges.push(upstream.next().await);
        callers.push(caller);
    }
    // No place is left, and it is told so by being closed.
    let mut late = Raw::open(&server).await;
    late.say(&request).await;
    late.hear_all().await;
    assert!(late.statuses().is_empty());
    for exchange in exchanges {
        exchange.answer_words(3, &["a"]);
    }
    for mut caller in callers {
        while caller.statuses().is_empty() {
            tokio::task::yield_now().await;
            caller.hear_now();
        }
        assert_eq!(caller.statuses(), [200]);
    }
    // Both are idle now, so there is room again.
    assert_eq!(server.get("/healthz").await.status, 200);
}
