use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// A request that has arrived and waits for its answer. Dropped without one, its connection breaks.
#[derive(Debug)]
pub struct Exchange {
    /// The path that was asked for.
    pub path: String,
    /// What was behind the `?` of it.
    pub query: String,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The request's body, if it was JSON.
    pub body: Value,
    pub(crate) reply: oneshot::Sender<Response>,
}

/// An answer that is being streamed. Dropped before [`EventStream::done`], it ends without `[DONE]`.
#[derive(Debug)]
pub struct EventStream {
    pieces: mpsc::UnboundedSender<io::Result<Bytes>>,
    chat: bool,
}

impl Exchange {
    /// Answers at once.
    ///
    /// # Panics
    /// If the status or a header is none.
    pub fn answer(self, status: u16, headers: &[(&str, &str)], body: Value) {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut response = (status, Json(body)).into_response();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header name");
            response
                .headers_mut()
                .insert(name, HeaderValue::try_from(*value).expect("a header value"));
        }
        // Whoever asked may have gone.
        let _ = self.reply.send(response);
    }

    /// Answers at once with what is no JSON.
    ///
    /// # Panics
    /// If the status is none.
    pub fn answer_text(self, status: u16, text: &'static str) {
        let status = StatusCode::from_u16(status).expect("a status");
        let _ = self.reply.send((status, text).into_response());
    }

    /// Begins to answer with a stream.
    #[must_use]
    pub fn stream(self) -> EventStream {
        let chat = self.is_chat();
        let (pieces, receiver) = mpsc::unbounded_channel();
        let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        }));
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let _ = self.reply.send(response);
        EventStream { pieces, chat }
    }

    /// Streams these words, a token each, and the usage, to the end.
    pub fn answer_words(self, prompt_tokens: u64, words: &[&str]) {
        let stream = self.stream();
        for word in words {
            stream.text(word);
        }
        stream.finish("stop");
        stream.usage(prompt_tokens, words.len() as u64);
        stream.done();
    }

    /// The same, but whole if no stream was asked for.
    pub fn answer_as_asked(self, prompt_tokens: u64, words: &[&str]) {
        if self.body["stream"] == true {
            return self.answer_words(prompt_tokens, words);
        }
        let mut choice = json!({ "index": 0, "finish_reason": "stop", "logprobs": null });
        let object = if self.is_chat() {
            choice["message"] = json!({ "role": "assistant", "content": words.concat() });
            "chat.completion"
        } else {
            choice["text"] = words.concat().into();
            "text_completion"
        };
        let answer = json!({
            "id": "up-1", "object": object, "created": 1, "model": "upstream", "choices": [choice],
            "usage": usage(prompt_tokens, words.len() as u64),
        });
        self.answer(200, &[], answer);
    }

    fn is_chat(&self) -> bool {
        self.path.ends_with("/chat/completions")
    }
}

impl EventStream {
    /// A chunk that adds text.
    pub fn text(&self, text: &str) {
        self.choice(text, None);
    }

    /// The chunk that says why the answer ends.
    pub fn finish(&self, reason: &str) {
        self.choice("", Some(reason));
    }

    /// The chunk that carries the usage.
    pub fn usage(&self, prompt_tokens: u64, completion_tokens: u64) {
        let usage = usage(prompt_tokens, completion_tokens);
        self.event(
            &json!({ "id": "up-1", "created": 1, "model": "upstream", "choices": [], "usage": usage }),
        );
    }

    /// Any event.
    pub fn event(&self, value: &Value) {
        self.raw(&format!("data: {value}\n\n"));
    }

    /// Any bytes.
    pub fn raw(&self, text: &str) {
        let _ = self.pieces.send(Ok(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// The proper end.
    pub fn done(self) {
        self.raw("data: [DONE]\n\n");
    }

    /// Breaks the connection.
    pub fn cut(self) {
        let _ = self.pieces.send(Err(io::Error::other("cut by the test")));
    }

    /// Returns when the other side has hung up.
    pub async fn hung_up(&self) {
        self.pieces.closed().await;
    }

    fn choice(&self, text: &str, finish_reason: Option<&str>) {
        let mut choice = json!({ "index": 0, "finish_reason": finish_reason, "logprobs": null });
        if self.chat {
            choice["delta"] = json!({ "content": text });
        } else {
            choice["text"] = text.into();
        }
        self.event(&json!({ "id": "up-1", "created": 1, "model": "upstream", "choices": [choice] }));
    }
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> Value {
    let total_tokens = prompt_tokens + completion_tokens;
    json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total_tokens,
    })
}

/// A body that breaks off before its first byte.
pub(crate) fn broken() -> impl Stream<Item = io::Result<Bytes>> {
    stream::iter([Err(io::Error::other("cut by the test"))])
}
