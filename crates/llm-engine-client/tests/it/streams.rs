use std::time::Duration;

use llm_engine_client::openai::{ChatRequest, Message};
use llm_engine_client::{Call, ErrorKind, Reason};
use scripted_upstream::{EventStream, Upstream, stay_frozen};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{chat_call, scripted, watched};

fn role() -> Value {
    json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }] })
}

/// The first attempt, with the given to it; whether there is a second one, which is answered, and the events then.
async fn after_first(begin: impl FnOnce(EventStream)) -> Vec<String> {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let (call, mut waits) = watched(chat_call());
    let (events, ()) = tokio::join!(client.stream(call), async {
        begin(server.next().await.stream());
        waits.pass().await;
        advance(Duration::from_millis(1)).await;
        server.next().await.answer_words(3, &["a", "b"]);
    });
    let mut events = events.unwrap();
    assert_eq!(events.attempts(), 2);
    let mut texts = Vec::new();
    while let Some(event) = events.next().await {
        let event: Value = serde_json::from_slice(&event.unwrap()).unwrap();
        texts.extend(
            event["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned),
        );
    }
    assert!(events.next().await.is_none());
    texts
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_before_its_first_text_is_made_again() {
    let cuts: [fn(EventStream); 6] = [
        EventStream::cut,
        |stream| {
            stream.raw(": ping\r\n\r\n");
            stream.cut();
        },
        |stream| {
            stream.event(&role());
            stream.cut();
        },
        // The end of the body without the end of the answer.
        |stream| {
            stream.event(&role());
            drop(stream);
        },
        |stream| stream.event(&json!({ "error": { "message": "m", "type": "upstream_error", "code": "x" } })),
        // Half of an event is none.
        |stream| {
            stream.raw("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}");
            stream.cut();
        },
    ];
    for cut in cuts {
        assert_eq!(after_first(cut).await.concat(), "ab");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_text_is_not_made_again() {
    for cut in [EventStream::cut, drop] as [fn(EventStream); 2] {
        let (mut server, client) = scripted().await;
        let (events, stream) = tokio::join!(client.stream(chat_call()), async {
            let stream = server.next().await.stream();
            stream.event(&role());
            stream.text("a");
            stream
        });
        let mut events = events.unwrap();
        for _ in 0..2 {
            events.next().await.unwrap().unwrap();
        }
        cut(stream);
        let error = events.next().await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.reason()),
            (ErrorKind::BrokenOff, Reason::Committed)
        );
        assert!(
            error
                .to_string()
                .starts_with("the stream broke off after 2 events: "),
            "{error}"
        );
        assert_eq!(error.attempts().len(), 1);
        assert!(events.next().await.is_none());
        // Nothing but the cancel comes: the server may go on with what broke off.
        assert!(server.next().await.path.starts_with("/v1/requests/"));
        assert!(server.arrived().is_none());
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_error_here() {
    let (mut server, client) = scripted().await;
    let call = Call::post("/v1/llm/completions-stream", "{}").model("m");
    let (events, ()) = tokio::join!(client.stream(call), async {
        let stream = server.next().await.stream();
        stream.event(
            &json!({ "request_id": "r", "output": { "text": "a", "finished": false }, "error": null }),
        );
        let content = json!({ "error": "the model is gone.", "timestamp": "t" });
        stream.event(&json!({ "request_id": "r", "output": null, "error": { "status_code": 502, "content": content } }));
        drop(stream);
    });
    // Both may have come in one piece, then nothing was handed out and the call is made again; else this is it.
    if let Ok(mut events) = events {
        events.next().await.unwrap().unwrap();
        let error = events.next().await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "502: the stream broke off after 1 event: the model is gone"
        );
    }
}

#[tokio::test]
async fn a_whole_answer_is_no_stream() {
    let (mut server, client) = scripted().await;
    let (error, ()) = tokio::join!(client.stream(chat_call()), async {
        server.next().await.answer(200, &[], json!({}));
    });
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer is whole: the request has to ask for a stream"
    );
}

#[tokio::test]
async fn a_stream_without_any_text_is_whole_too() {
    let (mut server, client) = scripted().await;
    let request = ChatRequest::new("m", [Message::user("say nothing")]);
    let (chunks, ()) = tokio::join!(client.chat_stream(&request), async {
        let exchange = server.next().await;
        assert_eq!(exchange.body["stream"], true);
        let stream = exchange.stream();
        stream.event(&role());
        stream.usage(3, 0);
        stream.done();
    });
    let mut chunks = chunks.unwrap();
    let first = chunks.next().await.unwrap().unwrap();
    assert_eq!(first.text(), "");
    let last = chunks.next().await.unwrap().unwrap();
    assert_eq!(last.usage.unwrap().prompt_tokens, 3);
    assert!(chunks.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_deadline() {
    let _frozen = stay_frozen();
    let (mut server, client) = scripted().await;
    let (events, stream) = tokio::join!(
        client.stream(chat_call().timeout(Duration::from_secs(10))),
        text(&mut server)
    );
    let mut events = events.unwrap();
    events.next().await.unwrap().unwrap();
    let (error, ()) = tokio::join!(events.next(), advance(Duration::from_secs(10)));
    let error = error.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::Deadline, Reason::Committed)
    );
    drop(stream);
}

async fn text(server: &mut Upstream) -> EventStream {
    let stream = server.next().await.stream();
    stream.text("a");
    stream
}
