use std::time::Duration;

use scripted_upstream::stay_frozen;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{Settle, chat_call, header, refuse, scripted, succeed, watched};

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled() {
    let (mut server, client) = scripted().await;
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.call(chat_call().idempotency_key("row 1/2")).await }
    });
    let exchange = server.next().await;
    assert_eq!(header(&exchange, "idempotency-key"), Some("row 1/2"));
    running.abort();
    let cancel = server.next().await;
    assert_eq!(cancel.path, "/v1/requests/row%201%2F2");
    assert_eq!(header(&cancel, "authorization"), Some("Bearer secret-key"));
    // A server that does not know the route is no problem.
    cancel.answer(404, &[], json!({ "detail": "Not Found" }));
    client.cancelled().await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cancelled_and_one_that_has_ended_is_not() {
    let (mut server, client) = scripted().await;
    let (events, stream) = tokio::join!(client.stream(chat_call()), async {
        let stream = server.next().await.stream();
        stream.text("a");
        stream
    });
    drop(events.unwrap());
    assert!(server.next().await.path.starts_with("/v1/requests/"));
    drop(stream);

    let (events, ()) = tokio::join!(client.stream(chat_call()), async {
        server.next().await.answer_words(3, &["a"]);
    });
    let mut events = events.unwrap();
    while events.next().await.is_some() {}
    drop(events);
    // What comes next is the next call, and no cancel.
    let (answer, ()) = tokio::join!(client.call(chat_call()), async {
        let exchange = server.next().await;
        assert_eq!(exchange.path, "/v1/chat/completions");
        succeed(exchange);
    });
    answer.unwrap();
    assert!(server.arrived().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_kept_is_given_up_and_where_there_is_none_nothing_is_sent() {
    let _frozen = stay_frozen();
    let mut settle = Settle::new().await;
    for is_booked in [false, true] {
        let (mut server, client) = scripted().await;
        let (call, mut waits) = watched(chat_call());
        let running = tokio::spawn(async move { client.call(call).await });
        refuse(server.next().await, 5000, is_booked);
        settle.settle().await;
        running.abort();
        settle.settle().await;
        let cancel = server.arrived();
        assert_eq!(cancel.is_some(), is_booked);
        drop((cancel, waits.pass().await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_holds_nobody_up() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.call(chat_call()).await }
    });
    let exchange = server.next().await;
    running.abort();
    let cancel = server.next().await;
    tokio::join!(client.cancelled(), advance(Duration::from_secs(2)));
    drop((exchange, cancel));
}
