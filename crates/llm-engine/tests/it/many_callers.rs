//! More callers than the model runs at a time: what its admission makes of them, beside fixed numbers of requests.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Answer, prompt};
use crate::server::{Server, Turn, model};

const CALLERS: usize = 32;
/// Of each answer.
const TOKENS: u64 = 32;

/// What so many callers get who ask again as soon as they have an answer, or when they are told to.
#[derive(Debug)]
struct Served {
    tokens_per_second: f64,
    answers: usize,
    refusals: usize,
}

/// Callers ask for so long, the first part of which does not count.
async fn served(admission: &str, warm_up: Duration, lasts: Duration) -> Served {
    let turn = Turn::take();
    let server = &Server::start(&turn, &model("m", &format!("context_tokens = 512\n{admission}")));
    let begun = Instant::now();
    let (warm, end) = (begun + warm_up, begun + warm_up + lasts);
    let callers = (0..CALLERS).map(|number| async move {
        let (mut tokens, mut answers, mut refusals) = (0, 0, 0);
        for round in 0.. {
            // All as long, so that who is let in does not change what is counted; and never the same twice.
            let body = prompt(&format!("{number} {round}: once upon a time there was a"), TOKENS);
            let Ok(answer) = timeout_at(end, server.complete(&body)).await else {
                break;
            };
            match answer.status {
                // However long it took: at the end as many are on their way.
                StatusCode::OK if Instant::now() >= warm => {
                    answers += 1;
                    tokens += answer.json()["output"]["num_completion_tokens"].as_u64().unwrap();
                }
                StatusCode::OK => {}
                _ => {
                    refusals += 1;
                    let wait = saturated(&answer);
                    if timeout_at(end, sleep(wait)).await.is_err() {
                        break;
                    }
                }
            }
        }
        (tokens, answers, refusals)
    });
    let sums = join_all(callers).await;
    let tokens: u64 = sums.iter().map(|(tokens, ..)| *tokens).sum();
    let tokens = f64::from(u32::try_from(tokens).unwrap());
    Served {
        tokens_per_second: tokens / lasts.as_secs_f64(),
        answers: sums.iter().map(|(_, answers, _)| answers).sum(),
        refusals: sums.iter().map(|(.., refusals)| refusals).sum(),
    }
}

/// Nothing else is ever said than that the model is full, and when to come back.
fn saturated(answer: &Answer) -> Duration {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], json!("saturated"));
    answer.retry_after()
}

#[tokio::test]
async fn of_32_callers_at_once_each_is_answered_or_told_when_to_come() {
    let served = served("", Duration::ZERO, Duration::from_secs(8)).await;
    println!("{served:?}");
    assert!(served.answers >= 10 && served.refusals > 0, "{served:?}");
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn table_of_32_callers_beside_fixed_numbers_of_requests() {
    let (warm_up, lasts) = (Duration::from_secs(15), Duration::from_secs(30));
    let mut best: f64 = 0.0;
    for fixed in [1, 2, 4, 8, 16] {
        let fixed_number = served(
            &format!("admission = 'off'\nconcurrency = {fixed}"),
            warm_up,
            lasts,
        )
        .await;
        println!("{fixed} at a time: {fixed_number:?}");
        best = best.max(fixed_number.tokens_per_second);
    }
    let adaptive = served("concurrency = 16", warm_up, lasts).await;
    let part = adaptive.tokens_per_second / best;
    println!("adaptive, at most 16: {adaptive:?}, {part:.3} of the best");
    assert!(part >= 0.95, "{part}");
}
