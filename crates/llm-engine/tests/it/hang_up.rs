//! Callers that don't stay.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::time::sleep;

use crate::client::{ENDLESS, prompt};
use crate::server::{Server, Turn, model};
use crate::until::until;

/// Nothing refills within a test.
const OUTPUT_TOKENS: u64 = 1_000_000;
const WINDOW: &str = "1000000h";

const STREAMS: u64 = 200;

/// How long settling may take after the last caller has gone.
const SETTLED: Duration = Duration::from_secs(2);

/// What policy `p` holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    running: u64,
    charged: u64,
}

/// Asked by a request that never fits, and so costs nothing.
async fn held(server: &Server) -> Held {
    let answer = server.complete(&prompt("Hello", OUTPUT_TOKENS + 1)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    let charged = OUTPUT_TOKENS - answer.remaining("p/output_tokens");
    assert_eq!(
        answer.number("x-ratelimit-remaining-tokens"),
        OUTPUT_TOKENS - charged
    );
    Held {
        running: STREAMS - answer.remaining("p/concurrency"),
        charged,
    }
}

#[tokio::test]
async fn two_hundred_streams_dropped_after_their_first_token_pay_for_what_was_generated_and_leave_nothing_running()
 {
    let turn = Turn::take();
    let queue = "concurrency = 8\ncontext_tokens = 512\nqueue_wait = '120s'\nqueue_length = 1024";
    let policy = format!(
        "[[policies]]\nname = 'p'\nconcurrency = {STREAMS}\n\
         output_tokens = {{ limit = {OUTPUT_TOKENS}, window = '{WINDOW}' }}"
    );
    let server = Server::start(&turn, &format!("{}{policy}", model("m", queue)));
    let worker = server.worker("m");
    let body = prompt(ENDLESS, 300);

    join_all((0..STREAMS).map(async |_| {
        let mut frames = server.stream(&body).await;
        frames.until_generated(1).await;
    }))
    .await;

    let (last, took) = until("every stream is settled", SETTLED, async || {
        let metrics = worker.metrics().await;
        let settled = metrics.running == 0 && metrics.waiting == 0 && held(&server).await.running == 0;
        settled.then_some(metrics)
    })
    .await;
    println!("settled {took:?} after the last caller had gone; {last:?}");
    assert_eq!(last.cancelled, STREAMS);
    let held = held(&server).await;
    assert_eq!(
        held.charged, last.generated_tokens,
        "charged and generated output tokens"
    );
    assert!(
        last.generated_tokens < STREAMS * 30,
        "{} tokens for callers that wanted one each",
        last.generated_tokens
    );

    // Time in which a model that still worked on something would be seen to do so.
    sleep(Duration::from_millis(300)).await;
    assert_eq!(worker.metrics().await, last);
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_prompt_is_read_is_forgotten() {
    let turn = Turn::take();
    let policy = format!(
        "[[policies]]\nname = 'p'\nconcurrency = {STREAMS}\n\
         output_tokens = {{ limit = {OUTPUT_TOKENS}, window = '{WINDOW}' }}"
    );
    let server = Server::start(&turn, &format!("{}{policy}", model("m", "")));
    let worker = server.worker("m");
    let body = prompt(&"All work and no play. ".repeat(280), 300);
    {
        let answer = server.complete(&body);
        let running = until("its prompt is being read", Duration::from_secs(10), async || {
            (worker.metrics().await.decode_steps > 0).then_some(())
        });
        tokio::select! {
            answer = answer => panic!("it should be reading, and got {answer:?}"),
            _ = running => {}
        }
    }
    let (last, _) = until("it is settled", SETTLED, async || {
        let metrics = worker.metrics().await;
        (metrics.running == 0 && held(&server).await.running == 0).then_some(metrics)
    })
    .await;
    assert_eq!(held(&server).await.charged, last.generated_tokens);
    assert_eq!(last.cancelled, 1);
}
