use std::time::Duration;

use hyper::StatusCode;
use llm_engine_server::Drained;
use scripted_upstream::{Upstream, freeze};
use tokio::time::advance;

use crate::harness::{Answer, Server, piece, running_stream};

#[tokio::test]
async fn while_draining_running_streams_end_properly_and_new_requests_are_refused() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (mut response, stream) = running_stream(&server, &mut upstream, 60).await;

    server.shut_down();
    server.settle().await;
    let refused = server.complete().await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["error"]["code"], "draining");
    assert!(refused.retry_after() > Duration::ZERO);
    let ready = Answer::read(server.send("GET", "/readyz", &[], None).await).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);

    advance(Duration::from_secs(29)).await;
    stream.text("b");
    stream.finish("stop");
    stream.usage(3, 2);
    stream.done();
    let mut rest = String::new();
    while !rest.contains("\"finished\":true") {
        rest.push_str(&piece(&mut response).await);
    }
    assert!(rest.contains("\"text\":\"b\""));
    assert_eq!(server.ended().await, Drained::Fully);
}

#[tokio::test]
async fn a_stream_that_outlasts_the_time_for_draining_ends_with_an_error() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (mut response, stream) = running_stream(&server, &mut upstream, 60).await;
    server.shut_down();
    server.settle().await;
    advance(Duration::from_secs(31)).await;
    let mut error = piece(&mut response).await;
    while error.starts_with(": ping") {
        error = piece(&mut response).await;
    }
    assert!(
        error.contains("\"status_code\":503") && error.contains("the server shut down"),
        "{error}"
    );
    stream.hung_up().await;
    assert_eq!(server.ended().await, Drained::CutOff);
}
