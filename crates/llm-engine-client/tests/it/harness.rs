use std::sync::Arc;
use std::time::Duration;

use llm_engine_client::{Backoff, Builder, Call, Client, Retry, Stop, Waiting};
use scripted_upstream::{Exchange, Upstream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::advance;

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A server that the test answers for, and a client of it.
pub(crate) async fn scripted() -> (Upstream, Client) {
    let server = Upstream::start().await;
    let client = builder(&server).build().unwrap();
    (server, client)
}

pub(crate) fn builder(server: &Upstream) -> Builder {
    builder_at(server.url())
}

/// From the URL that a scripted server gives.
pub(crate) fn builder_at(url: &str) -> Builder {
    Client::builder(url.trim_end_matches("/v1")).api_key("secret-key")
}

/// Waits that tests can know: 2 s each, three attempts.
pub(crate) fn two_seconds() -> Retry {
    Retry::new(Backoff::constant(Duration::from_secs(2)), Stop::after_attempts(3))
}

pub(crate) fn chat_call() -> Call {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    Call::post(CHAT, body.to_string()).model("m")
}

pub(crate) fn chat_answer(text: &str) -> Value {
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    })
}

/// Answers with success.
pub(crate) fn succeed(exchange: Exchange) {
    exchange.answer(200, &[("x-request-id", "r")], chat_answer("hello"));
}

/// Refuses with a time to come back.
pub(crate) fn refuse(exchange: Exchange, milliseconds: u64, is_booked: bool) {
    let seconds = milliseconds.div_ceil(1000).to_string();
    let milliseconds = milliseconds.to_string();
    let headers = [
        ("retry-after", seconds.as_str()),
        ("retry-after-ms", milliseconds.as_str()),
        ("x-should-retry", "true"),
    ];
    let body = json!({
        "detail": "Policy per-key allows 60 requests per minute.",
        "error": { "code": "rate_limited", "policy": "per-key", "booked": is_booked, "type": "rate_limit_error" },
    });
    exchange.answer(429, &headers, body);
}

pub(crate) fn header<'a>(exchange: &'a Exchange, name: &str) -> Option<&'a str> {
    exchange.headers.get(name).map(|value| value.to_str().unwrap())
}

/// The waits of a call, as it announces them.
pub(crate) struct Waits(mpsc::UnboundedReceiver<Duration>);

/// The call, and its waits.
pub(crate) fn watched(call: Call) -> (Call, Waits) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let call = call.on_wait(Arc::new(move |waiting: &Waiting<'_>| {
        let _ = sender.send(waiting.wait);
    }));
    (call, Waits(receiver))
}

impl Waits {
    /// Lets the next wait pass, by the frozen clock.
    pub(crate) async fn pass(&mut self) -> Duration {
        let wait = self.0.recv().await.unwrap();
        advance(wait).await;
        wait
    }
}

/// Lets everything happen that needs no time, under a frozen clock: what has been written to a socket is read, again and
/// again, before these bytes are.
pub(crate) struct Settle(TcpStream);

impl Settle {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while peer.read_exact(&mut byte).await.is_ok() {
                peer.write_all(&byte).await.unwrap();
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) async fn settle(&mut self) {
        for _ in 0..12 {
            let mut byte = [0];
            self.0.write_all(&byte).await.unwrap();
            self.0.read_exact(&mut byte).await.unwrap();
        }
    }
}
