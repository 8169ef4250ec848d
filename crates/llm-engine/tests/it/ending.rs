//! How a server ends: asked to, or killed.

use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;

use crate::client::{ENDLESS, finished, prompt};
use crate::server::{Server, Turn, model, signal};
use crate::until::until;
use crate::worker::is_running;

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
