//! How a server ends: asked to, or killed.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;

use crate::client::{ENDLESS, finished, prompt};
use crate::server::{Options, Server, Turn, model, signal};
use crate::until::until;
use crate::worker::{Worker, is_running};

/// The server gives its running requests 30 s.
const DRAINED: Duration = Duration::from_secs(35);

#[tokio::test]
async fn asked_to_end_it_finishes_what_runs_refuses_what_comes_and_is_exit_code_0() {
    let turn = Turn::take();
    let mut server = Server::start(&turn, &model("m", ""));
    let worker = server.worker("m");
    let mut stream = server.stream(&prompt(ENDLESS, 150)).await;
    stream.until_generated(2).await;

    signal(server.process(), "TERM");
    let (refused, _) = until("new requests are refused", Duration::from_secs(2), async || {
        let answer = server.complete(&prompt("Hello", 1)).await;
        (answer.status != StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "draining");
    refused.retry_after();
    assert_eq!(
        server.get("/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    assert_eq!(finished(&stream.rest().await), 150);
    let status = server.ended(DRAINED).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        !is_running(worker.process),
        "the server ends its workers before itself"
    );
}

#[tokio::test]
async fn asked_to_end_it_answers_who_waits_for_a_place_or_says_that_it_will_not() {
    let turn = Turn::take();
    let mut server = Server::start(&turn, &model("m", "concurrency = 1\nqueue_wait = '30s'"));
    let mut stream = server.stream(&prompt(ENDLESS, 60)).await;
    let (body, end) = (prompt(ENDLESS, 120), async {
        stream.until_generated(20).await;
        signal(server.process(), "TERM");
        finished(&stream.rest().await)
    });
    // All are in the queue long before the stream is over.
    let waiting = join_all((0..3).map(|_| server.complete(&body)));
    let (waited, streamed) = tokio::join!(waiting, end);
    assert_eq!(streamed, 60);
    for answer in waited {
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.retry_after();
        } else {
            answer.text();
        }
    }
    let status = server.ended(DRAINED).await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn asked_to_end_while_its_model_is_loading_it_ends_at_once() {
    let turn = Turn::take();
    let mut server = Server::begin(&turn, &model("m", ""), Options::default());
    let process = server.process();
    until("it has started its worker", Duration::from_secs(10), async || {
        Worker::find(process, server.folder(), "m")
    })
    .await;
    signal(server.process(), "TERM");
    let status = server.ended(Duration::from_secs(8)).await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn asked_to_end_while_idle_it_ends_at_once_and_leaves_nothing_behind() {
    let turn = Turn::take();
    let mut server = Server::start(&turn, &model("m", ""));
    let worker = server.worker("m");
    assert_eq!(server.socket_folders().len(), 1);
    signal(server.process(), "INT");
    let status = server.ended(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!is_running(worker.process));
    assert_eq!(server.socket_folders(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_killed_server_takes_its_workers_with_it() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", ""));
    let worker = server.worker("m");
    let mut stream = server.stream(&prompt(ENDLESS, 1500)).await;
    stream.until_generated(2).await;
    assert!(is_running(worker.process));
    signal(server.process(), "KILL");
    let (_, took) = until("the worker ends", Duration::from_secs(2), async || {
        (!is_running(worker.process)).then_some(())
    })
    .await;
    println!("the worker ended {took:?} after the server");
}
