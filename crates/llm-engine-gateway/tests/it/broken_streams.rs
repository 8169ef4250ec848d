//! Streams that are none, break, or hold nonsense.

use llm_engine_gateway::Failure;
use scripted_upstream::freeze;
use serde_json::json;

use crate::harness::{World, broken, drain, next_text, spent, streaming, text};
use crate::raw_upstream::RawUpstream;

/// The failure of a stream that begins with these bytes and ends there; asserts that only the request itself is charged
/// and that its place is free.
async fn failure_of_first(bytes: &str) -> String {
    let mut world = World::start().await;
    let failure = world
        .failure(|exchange| {
            let stream = exchange.stream();
            stream.raw(bytes);
        })
        .await;
    assert_eq!(world.spent(), spent(1, 0, 0), "{bytes:?}");
    world.assert_place_is_free().await;
    broken(failure)
}

/// The failure of a stream that goes on with these bytes after its first token; asserts that this token is charged, once,
/// and that its place is free.
async fn failure_of_next(bytes: &str) -> String {
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    stream.raw(bytes);
    drop(stream);
    let (events, failure) = drain(answer).await.unwrap_err();
    assert_eq!(text(&events), "a");
    assert_eq!(world.spent(), spent(1, 3, 1), "{bytes:?}");
    world.assert_place_is_free().await;
    broken(failure)
}

#[tokio::test]
async fn an_error_event_is_a_failure_in_the_deployment_s_words_first_and_later() {
    let _frozen = freeze();
    let event = "data: {\"error\":{\"message\":\"out of memory\",\"type\":\"x\",\"code\":500}}\n\n";
    assert_eq!(failure_of_first(event).await, "out of memory");
    assert_eq!(failure_of_next(event).await, "out of memory");
    let odd = "data: {\"error\":\"out of memory\"}\n\n";
    assert_eq!(failure_of_next(odd).await, "out of memory");
    let silent = "data: {\"error\":{\"code\":5}}\n\n";
    assert_eq!(failure_of_next(silent).await, "its answer is an error");
}

#[tokio::test]
async fn an_error_of_null_beside_a_chunk_is_none() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world
        .begin_with(&streaming(), |stream| {
            stream.event(&json!({ "error": null, "choices": [{ "text": "a", "finish_reason": "stop" }] }));
        })
        .await;
    stream.done();
    assert_eq!(text(&drain(answer).await.unwrap()), "a");
}

#[tokio::test]
async fn a_stream_without_events_is_a_failure() {
    let _frozen = freeze();
    assert!(failure_of_first("").await.contains("broke off"));
    assert!(failure_of_first("data: [DONE]\n\n").await.contains("empty"));
    assert!(
        failure_of_first(": ping\n\n: ping\n\n")
            .await
            .contains("broke off")
    );
}

#[tokio::test]
async fn garbage_for_an_event_is_a_failure_first_and_later() {
    let _frozen = freeze();
    for garbage in [
        "x",
        "{",
        "",
        "[{}]",
        "5",
        "null",
        "{\"choices\":5}",
        "{\"choices\":[{\"text\":5}]}",
    ] {
        let event = format!("data: {garbage}\n\n");
        assert!(
            failure_of_first(&event).await.contains("is no chunk"),
            "{garbage}"
        );
        assert!(failure_of_next(&event).await.contains("is no chunk"), "{garbage}");
    }
}

#[tokio::test]
async fn an_empty_list_is_no_chunk_either() {
    let _frozen = freeze();
    assert!(failure_of_next("data: []\n\n").await.contains("is no chunk"));
}

#[tokio::test]
async fn an_event_of_more_than_a_mebibyte_is_a_failure_first_and_later() {
    let _frozen = freeze();
    let long = format!(
        "data: {{\"choices\":[],\"x\":\"{}\"}}\n\n",
        "x".repeat(1024 * 1024)
    );
    assert!(failure_of_first(&long).await.contains("longer than"));
    assert!(failure_of_next(&long).await.contains("longer than"));
    // Also without an end.
    assert!(
        failure_of_next(&long[..long.len() - 1])
            .await
            .contains("longer than")
    );
}

#[tokio::test]
async fn a_stream_that_ends_without_done_is_whole_if_it_said_why_it_ends() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (answer, stream) = world.begin().await;
    stream.finish("stop");
    drop(stream);
    assert_eq!(text(&drain(answer).await.unwrap()), "a");
    assert_eq!(world.spent(), spent(1, 3, 1));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn a_stream_that_ends_without_done_and_without_a_reason_broke_off() {
    let _frozen = freeze();
    assert!(failure_of_next("").await.contains("broke off"));
    assert!(
        failure_of_next("data: {\"choices\":[")
            .await
            .contains("broke off")
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_in_mid_stream_is_a_failure_that_pays_for_what_had_come() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let (mut answer, stream) = world.begin().await;
    stream.text("b");
    assert_eq!(next_text(&mut answer).await, "a");
    assert_eq!(next_text(&mut answer).await, "b");
    stream.cut();
    let (events, failure) = drain(answer).await.unwrap_err();
    assert!(events.is_empty());
    assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    assert_eq!((failure.code(), failure.status()), ("upstream_failed", 502));
    assert_eq!(world.spent(), spent(1, 3, 2));
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn a_page_or_a_whole_answer_instead_of_a_stream_is_a_failure() {
    let _frozen = freeze();
    let whole = r#"{"id":"x","object":"text_completion","created":1,"model":"up","choices":[{"index":0,"text":"a"}]}"#;
    for (content_type, body) in [
        (
            "text/html",
            "<html>\n<body>Welcome to the proxy</body>\n</html>\n",
        ),
        ("application/json", whole),
    ] {
        let raw = RawUpstream::start().await;
        let mut world = World::with(|setup| *setup = crate::harness::setup(&raw.url())).await;
        let request = streaming();
        let (answer, ()) = tokio::join!(world.complete(&request), async {
            raw.next().await.answer(content_type, body).await;
        });
        broken(crate::harness::failed(answer));
        assert_eq!(world.spent(), spent(1, 0, 0));
        assert!(world.upstream.arrived().is_none());
    }
}
