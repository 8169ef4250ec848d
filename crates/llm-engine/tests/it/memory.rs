//! What the two processes need.

use futures_util::future::join_all;

use crate::client::{ENDLESS, Frames, prompt};
use crate::server::{Server, Turn, model};
use crate::worker::megabytes;

/// Of both processes together.
const MOST_MEGABYTES: u64 = 400;

/// Prompt and answer together fill the room that each of the 4 requests has.
const ANSWER_TOKENS: u64 = 2000;
/// When all four have come that far, all is in use that will be: the room for all tokens is taken at the start.
const MEASURE_AFTER_TOKENS: u64 = 100;
const STOP_AFTER_TOKENS: u64 = 250;

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

    let body = prompt(ENDLESS, ANSWER_TOKENS);
    let mut streams = join_all((0..4).map(|_| server.stream(&body))).await;
    let all_until = async |streams: &mut [Frames], tokens| {
        join_all(streams.iter_mut().map(|stream| stream.until_generated(tokens))).await;
    };
    all_until(&mut streams, MEASURE_AFTER_TOKENS).await;
    assert_eq!(worker.metrics().await.running, 4);
    let busy = both("VmRSS:");
    assert!(busy <= MOST_MEGABYTES, "{busy} MB with 4 streams");

    all_until(&mut streams, STOP_AFTER_TOKENS).await;
    let peak = both("VmHWM:");
    assert!(peak <= MOST_MEGABYTES, "{peak} MB at the peak");
    assert!(
        peak <= busy + 10,
        "{peak} MB after {STOP_AFTER_TOKENS} tokens each, {busy} MB after {MEASURE_AFTER_TOKENS}"
    );
}
