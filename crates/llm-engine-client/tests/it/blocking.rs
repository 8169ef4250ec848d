use std::thread;

use llm_engine_client::blocking::Client;
use llm_engine_client::openai::{ChatRequest, Message};
use llm_engine_client::{Call, ErrorKind};
use scripted_upstream::Upstream;
use tokio::runtime::{Handle, Runtime};

use crate::harness::{builder_at, chat_answer, chat_call};

/// A server that answers everything, on a runtime in the background, and a client that knows nothing of it.
fn served() -> (Runtime, Client) {
    let runtime = Runtime::new().unwrap();
    let url = runtime.block_on(Upstream::answering(|exchange| {
        if exchange.body["stream"] == true {
            exchange.answer_words(3, &["a", "b"]);
        } else {
            exchange.answer(200, &[], chat_answer("hello"));
        }
    }));
    let client = builder_at(&url).build().unwrap();
    (runtime, client.into())
}

#[test]
fn calls_and_streams_work_without_async() {
    let (_runtime, client) = served();
    let request = ChatRequest::new("m", [Message::user("hi")]);
    assert_eq!(client.chat(&request).unwrap().text(), "hello");
    assert_eq!(client.call(chat_call()).unwrap().attempts(), 1);
    let chunks = client.chat_stream(&request).unwrap();
    let texts: Vec<String> = chunks.map(|chunk| chunk.unwrap().text().to_owned()).collect();
    assert_eq!(texts.concat(), "ab");
    let body = r#"{"model": "m", "stream": true}"#;
    let events = client
        .stream(Call::post("/v1/chat/completions", body).model("m"))
        .unwrap();
    assert!(events.count() > 2);
}

#[test]
fn many_threads_share_a_client() {
    let (_runtime, client) = served();
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || client.call(chat_call()).unwrap().status)
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 200);
    }
}

#[test]
fn a_stream_that_is_dropped_is_cancelled_from_there_too() {
    let runtime = Runtime::new().unwrap();
    let mut server = runtime.block_on(Upstream::start());
    let client = Client::from(builder_at(server.url()).build().unwrap());
    let stream = thread::spawn(move || {
        let mut events = client.stream(chat_call()).unwrap();
        events.next().unwrap().unwrap();
        drop(events);
    });
    runtime.block_on(async {
        let held = server.next().await.stream();
        held.text("a");
        assert!(server.next().await.path.starts_with("/v1/requests/"));
    });
    stream.join().unwrap();
}

#[tokio::test]
async fn inside_of_a_runtime_there_is_an_error_and_no_panic() {
    assert!(Handle::try_current().is_ok());
    let client = Client::new("http://127.0.0.1:1", "k").unwrap();
    let error = client.models().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("use llm_engine_client::Client there"),
        "{error}"
    );
}
