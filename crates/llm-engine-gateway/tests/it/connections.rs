//! Connections that can't be made, or are cut before an answer has begun.

use std::time::Duration;

use llm_engine_gateway::Failure;
use scripted_upstream::freeze;
use tokio::time::advance;

use crate::harness::{World, broken, failed, setup, spent, streaming};
use crate::raw_upstream::RawUpstream;

#[tokio::test]
async fn a_refused_connection_costs_nothing_and_frees_the_place() {
    let _frozen = freeze();
    let closed = RawUpstream::start().await.url();
    let world = World::with(|world| *world = setup(&closed)).await;
    for _ in 0..2 {
        let failure = failed(world.complete(&streaming()).await);
        assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
        assert_eq!((failure.code(), failure.status()), ("upstream_failed", 502));
        assert_eq!(world.spent(), spent(0, 0, 0));
        assert_eq!(world.route().running(), 0);
    }
}

#[tokio::test]
async fn a_name_that_no_server_has_costs_nothing() {
    let _frozen = freeze();
    let world = World::with(|world| *world = setup("http://no-such-server.invalid/v1")).await;
    let failure = failed(world.complete(&streaming()).await);
    assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
    assert_eq!(world.spent(), spent(0, 0, 0));
}

/// Cuts the connection after these bytes of an answer; asserts that only the request is charged.
async fn cut_after(bytes: &str) -> String {
    let raw = RawUpstream::start().await;
    let world = World::with(|world| *world = setup(&raw.url())).await;
    let request = streaming();
    let (answer, ()) = tokio::join!(world.complete(&request), async {
        raw.next().await.write(bytes).await;
    });
    let words = broken(failed(answer));
    assert_eq!(world.spent(), spent(1, 0, 0), "{bytes:?}");
    assert_eq!(world.route().running(), 0);
    words
}

#[tokio::test]
async fn a_connection_that_is_cut_before_the_head_or_in_it_is_a_failure_that_charges_the_request() {
    let _frozen = freeze();
    cut_after("").await;
    cut_after("HTTP/1.1 200 OK\r\ncontent-").await;
    cut_after("nonsense\r\n\r\n").await;
}

#[tokio::test]
async fn a_connection_that_is_cut_between_the_head_and_the_first_event_is_a_failure_that_charges_the_request()
{
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(cut_after(head).await.contains("broke off"));
    assert!(
        cut_after(&format!("{head}7\r\ndata: {{\r\n"))
            .await
            .contains("broke off")
    );
    assert!(
        cut_after(&format!("{head}8\r\n: ping\n\n\r\n"))
            .await
            .contains("broke off")
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_in_an_error_s_body_is_still_that_error() {
    let _frozen = freeze();
    let cut = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 500\r\n\r\n{\"error\":";
    assert!(cut_after(cut).await.contains("503"));
}

#[tokio::test]
async fn a_kept_connection_that_the_deployment_has_closed_meanwhile_fails_nobody() {
    let _frozen = freeze();
    let raw = RawUpstream::start().await;
    let world = World::with(|world| *world = setup(&raw.url())).await;
    let request = streaming();
    for _ in 0..3 {
        let (answer, ()) = tokio::join!(world.complete(&request), async {
            raw.next().await.answer("text/event-stream", ONE_EVENT).await;
        });
        let answer = crate::harness::stream_of(answer);
        crate::harness::drain(answer).await.unwrap();
    }
    assert_eq!(world.spent(), spent(3, 9, 3));
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let _frozen = freeze();
    let raw = RawUpstream::start().await;
    let world = World::with(|world| *world = setup(&raw.url())).await;
    let request = streaming();
    let mut connection = None;
    for _ in 0..3 {
        let (answer, kept) = tokio::join!(world.complete(&request), async {
            let mut kept = match connection.take() {
                None => raw.next().await,
                Some(kept) => kept,
            };
            if kept.seen.is_empty() {
                kept.read_request().await;
            }
            kept.answer("text/event-stream", ONE_EVENT).await;
            kept.seen.clear();
            kept
        });
        connection = Some(kept);
        crate::harness::drain(crate::harness::stream_of(answer))
            .await
            .unwrap();
        crate::harness::settle().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_closed_after_a_minute() {
    let _frozen = freeze();
    let raw = RawUpstream::start().await;
    let world = World::with(|world| *world = setup(&raw.url())).await;
    let request = streaming();
    let (answer, mut kept) = tokio::join!(world.complete(&request), async {
        let mut kept = raw.next().await;
        kept.answer("text/event-stream", ONE_EVENT).await;
        kept
    });
    crate::harness::drain(crate::harness::stream_of(answer))
        .await
        .unwrap();
    advance(Duration::from_secs(50)).await;
    crate::harness::settle().await;
    assert!(kept.is_open());
    advance(Duration::from_secs(20)).await;
    crate::harness::settle().await;
    kept.closed().await;
}

#[tokio::test]
async fn the_connection_of_an_answer_that_nobody_wants_any_more_is_closed_and_not_used_again() {
    let _frozen = freeze();
    let raw = RawUpstream::start().await;
    let world = World::with(|world| *world = setup(&raw.url())).await;
    let request = streaming();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000\r\n\r\n";
    for _ in 0..2 {
        let (answer, mut cut) = tokio::join!(world.complete(&request), async {
            let mut cut = raw.next().await;
            cut.write(head).await;
            cut.write(ONE_EVENT).await;
            cut
        });
        drop(answer.unwrap());
        cut.closed().await;
    }
}

const ONE_EVENT: &str =
    "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
