//! A server whose connections break at any byte of its answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine_client::{Backoff, Client, Retry, Stop};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{chat_answer, chat_call};

/// What the server has seen of each request: its head.
type Heads = Arc<Mutex<Vec<String>>>;

/// Answers each request by as many bytes of `answer` as are left of `cuts`, then breaks; when there are no more, whole.
async fn cutting(answer: Vec<u8>, mut cuts: Vec<usize>) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Heads::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let Some(head) = request(&mut peer).await else {
                continue;
            };
            seen.lock().unwrap().push(head);
            let cut = cuts.pop().unwrap_or(answer.len());
            peer.write_all(&answer[..cut]).await.unwrap();
        }
    });
    (url, heads)
}

/// Reads a request with its body, and gives its head.
async fn request(peer: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = peer.read(&mut piece).await.ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return Some(head);
        }
    }
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn whole_answer() -> Vec<u8> {
    let body = chat_answer("hello").to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn streamed_answer() -> (Vec<u8>, usize) {
    let events = [
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        ": ping\r\n\r\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n",
        "data: [DONE]\n\n",
    ];
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    let mut first_text = 0;
    for (index, event) in events.iter().enumerate() {
        bytes.extend(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        if index == 2 {
            // Up to here without the line end of the chunk, which nobody needs to have seen.
            first_text = bytes.len() - 2;
        }
    }
    bytes.extend(b"0\r\n\r\n");
    (bytes, first_text)
}

fn client(url: &str) -> Client {
    let retry = Retry::new(Backoff::constant(Duration::ZERO), Stop::after_attempts(10));
    Client::builder(url).api_key("k").retry(retry).build().unwrap()
}

fn check(heads: &Heads, attempts: usize) -> Result<(), TestCaseError> {
    let heads = heads.lock().unwrap();
    let heads: Vec<&String> = heads.iter().filter(|head| head.starts_with("post")).collect();
    prop_assert_eq!(heads.len(), attempts);
    for (index, head) in heads.iter().enumerate() {
        let number = (index + 1).to_string();
        prop_assert_eq!(value(head, "x-llm-engine-attempt"), Some(&*number));
        prop_assert_eq!(value(head, "idempotency-key"), value(heads[0], "idempotency-key"));
    }
    Ok(())
}

fn run<F: Future<Output = Result<(), TestCaseError>>>(test: F) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_answer_that_is_cut_anywhere_is_asked_for_again(
        cuts in prop::collection::vec(0..whole_answer().len(), 0..5),
    ) {
        run(async {
            let attempts = cuts.len() + 1;
            let (url, heads) = cutting(whole_answer(), cuts).await;
            let answer = client(&url).call(chat_call()).await.unwrap();
            let whole = chat_answer("hello").to_string();
            prop_assert_eq!(&answer.body[..], whole.as_bytes());
            prop_assert_eq!(answer.attempts(), attempts);
            check(&heads, attempts)
        })?;
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_gives_no_text_twice(cut in 0..streamed_answer().0.len()) {
        run(async {
            let (bytes, first_text) = streamed_answer();
            let (url, heads) = cutting(bytes, vec![cut]).await;
            let mut events = client(&url).stream(chat_call()).await.unwrap();
            let mut text = String::new();
            let mut is_whole = true;
            while let Some(event) = events.next().await {
                let Ok(event) = event else { is_whole = false; break };
                let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
                text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap());
            }
            let attempts = events.attempts() as usize;
            if cut < first_text {
                prop_assert_eq!((text.as_str(), is_whole, attempts), ("hello", true, 2));
            } else if is_whole {
                prop_assert_eq!(text, "hello");
            } else {
                prop_assert!(["hel", "hello"].contains(&text.as_str()) && attempts == 1, "{}", text);
            }
            check(&heads, attempts)
        })?;
    }
}
