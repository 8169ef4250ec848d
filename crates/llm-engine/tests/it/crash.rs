//! A model worker that is killed takes its own requests with it, and nothing else.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use crate::client::{ENDLESS, Frames, STREAM, finished, prompt};
use crate::server::{Server, Turn, model, signal};
use crate::until::until;
use crate::worker::{Worker, is_running};

/// From the kill to the next answer.
const BACK: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(20);

async fn until_it_runs(worker: &Worker, requests: u64) {
    until("the requests run", PATIENCE, async || {
        (worker.metrics().await.running == requests).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_worker_ends_its_own_requests_with_an_error_and_no_others() {
    let turn = Turn::take();
    let sections = format!("{}{}", model("m", ""), model("other", ""));
    let mut server = Server::start(&turn, &sections);
    let (worker, other) = (server.worker("m"), server.worker("other"));

    let long = prompt(ENDLESS, 1500);
    let mut stream = server.stream(&long).await;
    let unharmed = prompt(ENDLESS, 120);
    let unharmed = server.post(&STREAM.replace("=m", "=other"), &unharmed).await;
    let mut unharmed = Frames::of(unharmed);
    let kill = async {
        until_it_runs(&worker, 2).await;
        stream.until_generated(3).await;
        unharmed.until_generated(3).await;
        signal(worker.process, "KILL");
        Instant::now()
    };
    let (whole, killed) = tokio::join!(server.complete(&long), kill);

    assert!(whole.status.is_server_error(), "{whole:?}");
    assert!(!whole.json()["detail"].as_str().unwrap().is_empty(), "{whole:?}");
    let frames = stream.rest().await;
    let last = frames.last().expect("a frame that says why");
    assert_eq!(last.output, None);
    let error = last.error.as_ref().expect("an error");
    assert!((500..600).contains(&error.status_code), "{error:?}");
    assert!(!error.content.error.is_empty());
    assert!(
        frames[..frames.len() - 1]
            .iter()
            .all(|frame| frame.error.is_none()),
        "{frames:?}"
    );

    let (text, _) = until("the model answers again", PATIENCE, async || {
        let answer = server.complete(&prompt("Hello", 1)).await;
        (answer.status == StatusCode::OK).then(|| answer.text())
    })
    .await;
    let back = killed.elapsed();
    println!("back {back:?} after the kill with {text:?}");
    assert!(back <= BACK, "{back:?}");
    assert_eq!(finished(&unharmed.rest().await), 120);
    assert!(
        is_running(other.process),
        "nobody touched the other model's process"
    );
    assert!(server.is_running());
    assert_ne!(server.worker("m").process, worker.process);
}

#[tokio::test]
async fn a_server_whose_only_model_is_down_is_not_ready_and_back_within_3_seconds() {
    let turn = Turn::take();
    let mut server = Server::start(&turn, &model("m", ""));
    assert_eq!(server.get("/readyz").await.status, StatusCode::OK);
    for _ in 0..2 {
        let worker = server.worker("m");
        let mut told = false;
        signal(worker.process, "KILL");
        let killed = Instant::now();
        let (down, noticed) = until("it is not ready", BACK, async || {
            let answer = server.get("/readyz").await;
            (answer.status != StatusCode::OK).then_some(answer)
        })
        .await;
        assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            server.get("/healthz").await.status,
            StatusCode::OK,
            "the server itself is well"
        );

        // Whoever asks meanwhile gets an error at once, and is told when to come back as soon as the end is noticed.
        until("it is ready again", PATIENCE, async || {
            let answer = server.complete(&prompt("Hello", 1)).await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(answer.json()["error"]["code"], "no_deployment");
                answer.retry_after();
                told = true;
            }
            assert!(
                answer.status == StatusCode::OK || answer.status.is_server_error(),
                "{answer:?}"
            );
            (server.get("/readyz").await.status == StatusCode::OK).then_some(())
        })
        .await;
        assert!(told);
        server.complete(&prompt("Hello", 1)).await.text();
        let back = killed.elapsed();
        println!("not ready {noticed:?} after the kill; the next answer after {back:?}");
        assert!(back <= BACK, "{back:?}");
        assert!(server.is_running());
    }
}
