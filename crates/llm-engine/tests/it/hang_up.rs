//! Callers that don't stay.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::time::sleep;

use crate::client::{ENDLESS, prompt};
use crate::server::{Server, Turn, model};
use crate::until::until;
use crate::worker::{Metrics, Worker};

const STREAMS: u64 = 200;

/// Nothing of it refills within a test.
const OUTPUT_TOKENS: u64 = 1_000_000;
const POLICY: &str = "[[policies]]\nname = 'p'\nconcurrency = 200\n\
                      output_tokens = { limit = 1_000_000, window = '1000000h' }";
const QUEUE: &str = "concurrency = 8\ncontext_tokens = 512\nqueue_wait = '120s'\nqueue_length = 1024";

/// How long settling may take after the last caller has gone.
const SETTLED: Duration = Duration::from_secs(2);

/// What policy `p` has counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    running: u64,
    charged: u64,
}

fn server(turn: &Turn) -> (Server, Worker) {
    let server = Server::start(turn, &format!("{}{POLICY}", model("m", QUEUE)));
    let worker = server.worker("m");
    (server, worker)
}

/// Asked by a request that never fits, and so costs nothing.
async fn counted(server: &Server) -> Counted {
    let answer = server.complete(&prompt("Hello", OUTPUT_TOKENS + 1)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    let remaining = answer.remaining("p/output_tokens");
    assert_eq!(answer.number("x-ratelimit-remaining-tokens"), remaining);
    Counted {
        running: STREAMS - answer.remaining("p/concurrency"),
        charged: OUTPUT_TOKENS - remaining,
    }
}

/// Waits until nothing is running any more, and checks that the policy has charged what the model has generated, and
/// that the model rests.
#[expect(
    clippy::print_stdout,
    reason = "the figures are for whoever runs this with --nocapture"
)]
async fn settled(server: &Server, worker: &Worker) -> Metrics {
    let ((metrics, counted), took) = until("everything is settled", SETTLED, async || {
        let metrics = worker.metrics().await;
        let counted = counted(server).await;
        let nothing_runs = metrics.running == 0 && metrics.waiting == 0 && counted.running == 0;
        nothing_runs.then_some((metrics, counted))
    })
    .await;
    println!("settled {took:?} after the last caller had gone; {counted:?}, {metrics:?}");
    assert_eq!(counted.charged, metrics.generated_tokens, "charged and generated");
    // Time in which a model that still worked on something would be seen to do so.
    sleep(Duration::from_millis(300)).await;
    assert_eq!(worker.metrics().await, metrics);
    metrics
}

#[tokio::test]
async fn two_hundred_streams_dropped_after_their_first_token_pay_for_what_was_generated_and_nothing_runs_on()
{
    let turn = Turn::take();
    let (server, worker) = server(&turn);
    let body = prompt(ENDLESS, 300);
    join_all((0..STREAMS).map(async |_| {
        server.stream(&body).await.until_generated(1).await;
    }))
    .await;
    let metrics = settled(&server, &worker).await;
    assert_eq!(metrics.cancelled, STREAMS);
    // A token or two are on their way while a hang-up is noticed.
    assert!(metrics.generated_tokens < 5 * STREAMS, "{metrics:?}");
}

#[tokio::test]
async fn streams_that_end_in_any_order_dropped_or_whole_pay_for_what_was_generated() {
    let turn = Turn::take();
    let (server, worker) = server(&turn);
    join_all((0..32).map(async |caller| {
        let tokens = 1 + caller * 7 % 10;
        // Each reserves another amount, and uses a part of it.
        let mut frames = server.stream(&prompt(ENDLESS, 12 + caller % 5 * 60)).await;
        frames.until_generated(tokens).await;
        if caller % 5 == 0 {
            frames.rest().await;
        }
    }))
    .await;
    let metrics = settled(&server, &worker).await;
    assert!(metrics.generated_tokens > 32 * 5, "{metrics:?}");
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_prompt_is_read_is_forgotten() {
    let turn = Turn::take();
    let (server, worker) = server(&turn);
    let body = prompt(&"All work and no play. ".repeat(70), 30);
    {
        let answer = server.complete(&body);
        let reading = until("its prompt is being read", Duration::from_secs(10), async || {
            (worker.metrics().await.decode_steps > 0).then_some(())
        });
        tokio::select! {
            answer = answer => panic!("it should be reading, and got {answer:?}"),
            _ = reading => {}
        }
    }
    let metrics = settled(&server, &worker).await;
    assert_eq!(metrics.cancelled, 1);
    assert_eq!(metrics.generated_tokens, 0);
}
