//! What the two processes need.

use futures_util::future::join_all;

use crate::client::{finished, prompt};
use crate::server::{Server, Turn, model};
use crate::worker::megabytes;

/// Of both processes together.
const MOST_MEGABYTES: u64 = 400;

const PROMPT_TOKENS: u64 = 1500;
const ANSWER_TOKENS: u64 = 250;
const MEASURE_FROM_TOKENS: u64 = 100;

#[tokio::test]
async fn server_and_worker_stay_below_400_mb_idle_and_with_4_long_streams() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", ""));
    let worker = server.worker("m");
    let both = |name: &str| {
        let (server, worker) = (megabytes(server.process(), name), megabytes(worker.process, name));
        println!("{name} {server} MB server + {worker} MB worker");
        server + worker
    };
    let idle = both("VmRSS:");
    assert!(idle <= MOST_MEGABYTES, "{idle} MB idle");

    // The room of each request is filled almost to its end.
    let text = (0..)
        .map(|number| format!("{number}, "))
        .take(380)
        .collect::<String>();
    let body = prompt(&text, ANSWER_TOKENS);
    let mut streams = join_all((0..4).map(|_| server.stream(&body))).await;
    join_all(
        streams
            .iter_mut()
            .map(|stream| stream.until_generated(MEASURE_FROM_TOKENS)),
    )
    .await;
    assert_eq!(worker.metrics().await.running, 4);
    let busy = both("VmRSS:");
    assert!(busy <= MOST_MEGABYTES, "{busy} MB with 4 streams");

    for frames in join_all(streams.into_iter().map(|stream| stream.rest())).await {
        assert_eq!(finished(&frames), ANSWER_TOKENS);
        let prompt_tokens = frames
            .last()
            .unwrap()
            .output
            .as_ref()
            .unwrap()
            .num_prompt_tokens
            .unwrap();
        assert!(prompt_tokens >= PROMPT_TOKENS, "{prompt_tokens}");
    }
    let peak = both("VmHWM:");
    assert!(peak <= MOST_MEGABYTES, "{peak} MB at the peak");
}
