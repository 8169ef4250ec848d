use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine_client::Client;
use scripted_upstream::{Exchange, Upstream, stay_frozen};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};

use crate::harness::{Settle, builder, builder_at, chat_answer, chat_call, refuse, succeed};

const TICK: Duration = Duration::from_millis(10);

/// Ten a second, ten at once; as our server does, it says so in each answer.
struct Limited {
    began: Instant,
    /// Requests that could be admitted, in milliseconds at a hundred per request.
    level: f64,
    at: Duration,
    refused: usize,
}

impl Limited {
    fn answer(&mut self, exchange: Exchange) {
        let now = self.began.elapsed();
        self.level = (self.level + (now - self.at).as_secs_f64() * 10.0).min(10.0);
        self.at = now;
        let admitted = self.level >= 1.0;
        if admitted {
            self.level -= 1.0;
        }
        let limit = format!("\"p/requests\";r={};t=1", self.level.floor());
        let policy = "\"p/requests\";q=10;w=1";
        if admitted {
            exchange.answer(
                200,
                &[("ratelimit", &limit), ("ratelimit-policy", policy)],
                chat_answer("a"),
            );
        } else {
            self.refused += 1;
            let wait = ((1.0 - self.level) * 100.0).ceil().to_string();
            let headers = [
                ("ratelimit", limit.as_str()),
                ("ratelimit-policy", policy),
                ("retry-after-ms", &wait),
            ];
            exchange.answer(429, &headers, json!({ "error": { "code": "rate_limited" } }));
        }
    }
}

/// So many calls at once, each of a client of its own with the same key; how long it took, and how many were refused.
async fn crowd(count: usize) -> (Duration, usize) {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let began = Instant::now();
    let limited = Arc::new(Mutex::new(Limited {
        began,
        level: 10.0,
        at: Duration::ZERO,
        refused: 0,
    }));
    let server = limited.clone();
    let url = Upstream::answering(move |exchange| server.lock().unwrap().answer(exchange)).await;
    let mut calls = JoinSet::new();
    let client: Client = builder_at(&url).build().unwrap();
    for index in 0..count {
        // Clients share the line; clones share the connections as well.
        let client = if index % 10 == 0 {
            builder_at(&url).build().unwrap()
        } else {
            client.clone()
        };
        calls.spawn(async move { client.call(chat_call()).await });
    }
    let mut left = count;
    while left > 0 {
        settle.settle().await;
        while let Some(answer) = calls.try_join_next() {
            answer.unwrap().unwrap();
            left -= 1;
        }
        advance(TICK).await;
    }
    let refused = limited.lock().unwrap().refused;
    (began.elapsed(), refused)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_leave_at_the_pace_of_the_server() {
    let (took, refused) = crowd(100).await;
    assert!(refused <= 15, "{refused} refusals");
    // 10 at once and 90 at ten a second take 9 s.
    assert!(took <= Duration::from_secs(11), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_refusal_holds_all_and_a_booked_call_passes_them() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let mut server = Upstream::start().await;
    let mut calls = JoinSet::new();
    let client = builder(&server).build().unwrap();
    let call = |body: &str| {
        let client = client.clone();
        let call = chat_call().body(format!("{{\"name\": \"{body}\"}}"));
        async move { client.call(call).await.unwrap() }
    };
    calls.spawn(call("first"));
    refuse(server.next().await, 3000, true);
    settle.settle().await;
    calls.spawn(call("second"));
    calls.spawn(call("third"));
    settle.settle().await;
    assert!(server.arrived().is_none());
    advance(Duration::from_secs(3)).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        let exchange = loop {
            settle.settle().await;
            if let Some(exchange) = server.arrived() {
                break exchange;
            }
            advance(TICK).await;
        };
        order.push(exchange.body["name"].as_str().unwrap().to_owned());
        succeed(exchange);
    }
    assert_eq!(order, ["first", "second", "third"]);
    calls.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_cancelled_has_left_the_line_and_other_lines_go_on() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let mut server = Upstream::start().await;
    let client = builder(&server).build().unwrap();
    let spawn = |client: &Client, model: &str| {
        let (client, call) = (client.clone(), chat_call().model(model));
        tokio::spawn(async move { client.call(call).await.unwrap() })
    };
    let first = spawn(&client, "m");
    refuse(server.next().await, 3000, false);
    settle.settle().await;
    first.abort();
    let second = spawn(&client, "m");
    let third = spawn(&client, "m");
    settle.settle().await;
    assert!(server.arrived().is_none());

    let other_model = spawn(&client, "another");
    succeed(server.next().await);
    other_model.await.unwrap();
    let other_key = spawn(&builder(&server).api_key("another").build().unwrap(), "m");
    succeed(server.next().await);
    other_key.await.unwrap();

    // The head of the line goes; the next one takes its place.
    second.abort();
    settle.settle().await;
    advance(Duration::from_secs(3)).await;
    succeed(server.next().await);
    third.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn thousands_wait_while_one_is_refused() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let mut server = Upstream::start().await;
    let client = builder(&server).build().unwrap();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(chat_call()).await }
    });
    refuse(server.next().await, 60_000, true);
    settle.settle().await;
    let mut calls = JoinSet::new();
    for _ in 0..2000 {
        let client = client.clone();
        calls.spawn(async move { client.call(chat_call()).await });
    }
    for _ in 0..590 {
        advance(Duration::from_millis(100)).await;
    }
    settle.settle().await;
    assert!(server.arrived().is_none());
    first.abort();
    calls.shutdown().await;
}
