use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use scripted_upstream::freeze;
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{Answer, SYNC, Server, chat, prompt, quick, wall_clock};

const TICK: Duration = Duration::from_millis(1);
const CHAT: &str = "/v1/chat/completions";

/// A generated token costs a dollar. A request reserves five, and uses two.
async fn server(window: &str) -> Server {
    let price = "price = { input_usd_per_million = 0, output_usd_per_million = 1_000_000 }";
    let policy = format!("[[policies]]\nname = 'p'\nper = ['key']\nusd = {{ limit = 10.0, {window} }}");
    Server::start(&quick().await, &format!("{price}\n{policy}")).await
}

/// Three requests fit: the fourth would reserve five dollars of four.
async fn exhaust(server: &Server) {
    for left in ["8000000000", "6000000000", "4000000000"] {
        let answer = server.complete().await;
        assert_eq!(answer.status, StatusCode::OK);
        let limits = answer.header("ratelimit").unwrap();
        assert!(limits.starts_with(&format!("\"p/usd\";r={left};t=")), "{limits}");
    }
}

fn assert_permanent(answer: &Answer) {
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.header("retry-after-ms"), None);
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "insufficient_quota");
    assert_eq!((&error["policy"], &error["limit"]), (&json!("p"), &json!(10.0)));
    assert_eq!(
        (&error["retry_after_ms"], &error["booked"]),
        (&Value::Null, &json!(false))
    );
}

async fn assert_exhausted(server: &Server, detail: &str) {
    let answer = server.complete().await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
    assert_permanent(&answer);
    assert_eq!(answer.json()["error"]["code"], "budget_exhausted");
    assert_eq!(answer.json()["detail"], detail);

    let mut whole = chat();
    let mut streamed = chat();
    (whole["stream"], streamed["stream"]) = (false.into(), true.into());
    let completion = json!({ "model": "m", "prompt": "p", "max_tokens": 5 });
    for (route, body) in [(CHAT, whole), (CHAT, streamed), ("/v1/completions", completion)] {
        let answer = Answer::read(server.post(route, &body).await).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{route}");
        assert_permanent(&answer);
        assert_eq!(answer.json()["error"]["code"], "insufficient_quota");
        assert_eq!(answer.json()["error"]["message"], detail);
        assert_eq!(answer.json().get("detail"), None);
    }
}

async fn advance_until(time: &str, but: Duration) {
    let time: Timestamp = time.parse().unwrap();
    let wait = Duration::try_from(time.duration_since(wall_clock())).unwrap();
    advance(wait - but).await;
}

#[tokio::test]
async fn a_budget_for_the_day_that_is_gone_is_there_again_at_midnight() {
    let _frozen = freeze();
    let server = server("window = 'calendar-day'").await;
    exhaust(&server).await;
    assert_exhausted(
        &server,
        "Policy p allows $10.00 per calendar day, this request asks for $5.00 and $4.00 are left; it is there again in \
         12h.",
    )
    .await;
    advance_until("2026-11-25T00:00:00Z", TICK).await;
    assert_exhausted(
        &server,
        "Policy p allows $10.00 per calendar day, this request asks for $5.00 and $4.00 are left; it is there again in \
         0.1 s.",
    )
    .await;
    advance(TICK).await;
    exhaust(&server).await;
    advance_until("2026-11-26T00:00:00Z", Duration::ZERO).await;
    exhaust(&server).await;
}

#[tokio::test]
async fn a_budget_for_the_month_lasts_until_the_first_of_the_next() {
    let _frozen = freeze();
    let server = server("window = 'calendar-month'").await;
    exhaust(&server).await;
    for day in 25..=30 {
        advance_until(&format!("2026-11-{day}T00:00:00Z"), Duration::ZERO).await;
        assert_eq!(server.complete().await.status, StatusCode::PAYMENT_REQUIRED);
    }
    advance_until("2026-12-01T00:00:00Z", TICK).await;
    assert_eq!(server.complete().await.status, StatusCode::PAYMENT_REQUIRED);
    advance(TICK).await;
    exhaust(&server).await;
}

#[tokio::test]
async fn a_day_ends_when_it_is_midnight_in_the_time_zone_of_the_policy() {
    let _frozen = freeze();
    let server = server("window = 'calendar-day', time_zone = 'America/New_York'").await;
    exhaust(&server).await;
    advance_until("2026-11-25T05:00:00Z", TICK).await;
    assert_eq!(server.complete().await.status, StatusCode::PAYMENT_REQUIRED);
    advance(TICK).await;
    exhaust(&server).await;
}

#[tokio::test]
async fn a_budget_that_is_gone_takes_none_of_other_callers_and_costs_nothing_more() {
    let _frozen = freeze();
    let server = server("window = 'calendar-day'").await;
    exhaust(&server).await;
    for _ in 0..3 {
        let refused = server.complete().await;
        assert_eq!(refused.status, StatusCode::PAYMENT_REQUIRED);
        assert_eq!(
            refused.header("ratelimit"),
            Some("\"p/usd\";r=4000000000;t=43200")
        );
    }
    // What is left is still there for a request that needs less.
    let smaller = Answer::read(server.post(SYNC, &prompt(4)).await).await;
    assert_eq!(smaller.status, StatusCode::OK);
    let other = Answer::read(server.post_as("other", SYNC, &prompt(5)).await).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn with_a_rate_that_is_used_up_as_well_the_budget_outweighs_it() {
    let _frozen = freeze();
    let window = "window = 'calendar-day' }\nrequests = { limit = 3, window = '1m'";
    let server = server(window).await;
    for _ in 0..3 {
        assert_eq!(server.complete().await.status, StatusCode::OK);
    }
    let refused = server.complete().await;
    assert_eq!(refused.status, StatusCode::PAYMENT_REQUIRED);
    assert_permanent(&refused);
}

#[tokio::test]
async fn what_a_request_used_beyond_its_reservation_is_charged_to_the_budget() {
    let _frozen = freeze();
    let upstream =
        scripted_upstream::Upstream::answering(|exchange| exchange.answer_words(3, &["a"; 12])).await;
    let price = "price = { input_usd_per_million = 0, output_usd_per_million = 1_000_000 }";
    let policy = "[[policies]]\nname = 'p'\nusd = { limit = 10.0, window = 'calendar-day' }";
    let server = Server::start(&upstream, &format!("{price}\n{policy}")).await;
    let overrun = server.complete().await;
    assert_eq!(overrun.status, StatusCode::OK);
    assert!(overrun.header("ratelimit").unwrap().starts_with("\"p/usd\";r=0;"));
    let one_dollar = Answer::read(server.post(SYNC, &prompt(1)).await).await;
    assert_eq!(one_dollar.status, StatusCode::PAYMENT_REQUIRED);
    // Debt does not outlast the day.
    advance_until("2026-11-25T00:00:00Z", Duration::ZERO).await;
    assert_eq!(server.complete().await.status, StatusCode::OK);
}
