//! Batches inside their caller's limits, by a clock that the tests move.

use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Upstream, stay_frozen};
use serde_json::json;
use tokio::time::advance;

use crate::harness::metric;
use crate::storing::{Storing, line};

const COMPLETIONS: &str = "/v1/completions";

fn lines(count: usize) -> String {
    (0..count)
        .map(|number| line(&format!("row-{number}"), &format!("p{number}")))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_a_quota_and_have_one_time_booked_at_most() {
    let _frozen = stay_frozen();
    let mut upstream = Upstream::start().await;
    let quota = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '10s' }\n";
    let it = Storing::start(upstream.url(), quota).await;
    let batch = it.begin(COMPLETIONS, &lines(3)).await;
    upstream.next().await.answer_as_asked(3, &["x"]);
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    it.server.settle().await;
    assert!(upstream.arrived().is_none());
    // The second row has the next time, and whoever waits for its answer the one after it: not the fourth.
    let interactive = it.server.complete().await;
    assert_eq!(interactive.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(interactive.retry_after(), Duration::from_secs(20));
    advance(Duration::from_secs(10)).await;
    upstream.next().await.answer_as_asked(3, &["x"]);
    // The interactive one does not come, so its turn is the third row's a little later.
    for _ in 0..5 {
        it.server.settle().await;
        advance(Duration::from_secs(5)).await;
    }
    upstream.next().await.answer_as_asked(3, &["x"]);
    advance(Duration::from_secs(1)).await;
    let ended = it.until(&target, |batch| batch["status"] == "completed").await;
    assert_eq!(
        ended["request_counts"],
        json!({ "total": 3, "completed": 3, "failed": 0 })
    );
    let failed = metric(&it.server, "llm_engine_batch_rows_total{outcome=\"failed\"}").await;
    assert_eq!(
        failed.as_deref(),
        Some("0"),
        "no row has paid for being told to wait"
    );
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_a_budget_until_the_calendar_turns() {
    let _frozen = stay_frozen();
    let mut upstream = Upstream::start().await;
    let budget =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = 'calendar-day' }\n";
    let it = Storing::start(upstream.url(), budget).await;
    let batch = it.begin(COMPLETIONS, &lines(2)).await;
    upstream.next().await.answer_as_asked(3, &["x"]);
    it.server.settle().await;
    // It is noon.
    advance(Duration::from_secs(11 * 3600)).await;
    it.server.settle().await;
    assert!(upstream.arrived().is_none());
    advance(Duration::from_secs(3600)).await;
    it.server.settle().await;
    advance(Duration::from_secs(60)).await;
    upstream.next().await.answer_as_asked(3, &["x"]);
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    advance(Duration::from_secs(1)).await;
    it.until(&target, |batch| batch["status"] == "completed").await;
}

#[tokio::test(start_paused = true)]
async fn when_its_day_is_over_what_was_done_is_there_and_what_is_missing_is_named() {
    let _frozen = stay_frozen();
    let mut upstream = Upstream::start().await;
    let budget =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = 'calendar-month' }\n";
    let it = Storing::start(upstream.url(), budget).await;
    let batch = it.begin(COMPLETIONS, &lines(3)).await;
    upstream.next().await.answer_as_asked(3, &["x"]);
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    it.server.settle().await;
    advance(Duration::from_secs(24 * 3600)).await;
    let ended = it.until(&target, |batch| batch["status"] == "expired").await;
    assert_eq!(
        ended["request_counts"],
        json!({ "total": 3, "completed": 1, "failed": 2 })
    );
    assert_eq!(ended["expired_at"].as_i64(), ended["expires_at"].as_i64());
    assert_eq!(it.lines(&ended["output_file_id"]).await[0]["custom_id"], "row-0");
    for error in it.lines(&ended["error_file_id"]).await {
        assert_eq!(error["error"]["code"], "batch_expired");
    }
    // And it is forgotten when nobody can want it any more.
    assert_eq!(it.server.get(&target).await.status, StatusCode::OK);
    advance(Duration::from_secs(31 * 24 * 3600)).await;
    it.server.settle().await;
    let gone = loop {
        let answer = it.server.get(&target).await;
        if answer.status == StatusCode::NOT_FOUND {
            break answer;
        }
    };
    assert_eq!(gone.json()["error"]["code"], "batch_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_down_or_says_when_to_come_back_uses_up_no_row() {
    let _frozen = stay_frozen();
    let mut upstream = Upstream::start().await;
    let it = Storing::start(upstream.url(), "").await;
    let batch = it.begin(COMPLETIONS, &lines(1)).await;
    for _ in 0..10 {
        upstream.next().await.answer(
            429,
            &[("retry-after", "7")],
            json!({ "error": { "message": "slowly" } }),
        );
        it.server.settle().await;
        advance(Duration::from_secs(8)).await;
    }
    for _ in 0..10 {
        upstream
            .next()
            .await
            .answer(500, &[], json!({ "error": { "message": "broken" } }));
        it.server.settle().await;
        advance(Duration::from_secs(60)).await;
    }
    upstream.next().await.answer_as_asked(3, &["x"]);
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    advance(Duration::from_secs(1)).await;
    let ended = it.until(&target, |batch| batch["status"] == "completed").await;
    assert_eq!(ended["request_counts"]["completed"], 1);
}
