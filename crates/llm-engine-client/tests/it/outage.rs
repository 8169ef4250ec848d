use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use llm_engine_client::Reason;
use scripted_upstream::{Upstream, stay_frozen};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::advance;

use crate::harness::{Settle, builder_at, chat_call};

/// In each of so many seconds.
const CALLS: usize = 20;
const SECONDS: usize = 60;

#[tokio::test(start_paused = true)]
async fn a_total_outage_is_not_made_worse() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let url = Upstream::answering(move |exchange| {
        count.fetch_add(1, Ordering::Relaxed);
        exchange.answer(503, &[], json!({ "detail": "down" }));
    })
    .await;
    let client = builder_at(&url).build().unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..SECONDS {
        for _ in 0..CALLS {
            let client = client.clone();
            calls.spawn(async move { client.call(chat_call()).await });
        }
        for _ in 0..10 {
            settle.settle().await;
            advance(Duration::from_millis(100)).await;
        }
    }
    while !calls.is_empty() {
        settle.settle().await;
        while let Some(answer) = calls.try_join_next() {
            let error = answer.unwrap().unwrap_err();
            assert!(
                matches!(
                    error.reason(),
                    Reason::NoBudget | Reason::Stopped | Reason::Deadline
                ),
                "{error}"
            );
        }
        advance(Duration::from_millis(500)).await;
    }
    let (sent, offered) = (sent.load(Ordering::Relaxed), CALLS * SECONDS);
    // A fifth of the requests; the floor is a tenth of a second's worth less than that.
    assert!(
        sent > offered && sent * 10 <= offered * 12 + 100,
        "{sent} for {offered}"
    );
}
