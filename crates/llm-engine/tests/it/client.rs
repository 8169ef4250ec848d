//! What comes back from a server under test.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{HeaderMap, Response, StatusCode};
use llm_engine_wire::sse::Decoder;
use llm_engine_wire::v1::Frame;
use serde_json::{Value, json};

pub(crate) const SYNC: &str = "/v1/llm/completions-sync?model_endpoint_name=m";
pub(crate) const STREAM: &str = "/v1/llm/completions-stream?model_endpoint_name=m";

/// A short prompt from which the model, always taking the likeliest token, goes on for longer than any test listens.
pub(crate) const ENDLESS: &str = "Once upon a time";

/// A v1 body; the likeliest token is taken each time.
pub(crate) fn prompt(text: &str, max_new_tokens: u64) -> Value {
    json!({ "prompt": text, "max_new_tokens": max_new_tokens, "temperature": 0 })
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    pub(crate) fn text(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.json()["output"]["text"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn number(&self, header: &str) -> u64 {
        let value = self
            .headers
            .get(header)
            .unwrap_or_else(|| panic!("no {header} in {self:?}"));
        let value = value.to_str().unwrap();
        value
            .parse()
            .unwrap_or_else(|_| panic!("{header} is {value}, no whole number"))
    }

    /// When a refused caller may come back: the exact time, which whole seconds may not fall short of.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> Duration {
        let (seconds, milliseconds) = (self.number("retry-after"), self.number("retry-after-ms"));
        assert!(seconds >= 1 && seconds * 1000 >= milliseconds, "{self:?}");
        assert!(milliseconds > 0, "{self:?}");
        assert_eq!(self.headers["x-should-retry"], "true");
        Duration::from_millis(milliseconds)
    }

    /// `r` of an item of the `RateLimit` header.
    #[track_caller]
    pub(crate) fn remaining(&self, item: &str) -> u64 {
        let header = self.headers["ratelimit"].to_str().unwrap();
        let parameters = header
            .split(", ")
            .find_map(|found| found.strip_prefix(&format!("\"{item}\";")))
            .unwrap_or_else(|| panic!("no {item} in {header}"));
        let remaining = parameters
            .split(';')
            .find_map(|parameter| parameter.strip_prefix("r="));
        remaining.unwrap().parse().unwrap()
    }
}

/// A v1 stream that is being read. Dropped, it hangs up.
#[derive(Debug)]
pub(crate) struct Frames {
    body: Incoming,
    decoder: Decoder,
}

impl Frames {
    pub(crate) fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body(),
            decoder: Decoder::default(),
        }
    }

    /// The next frame; `None` if the body has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                return Some(serde_json::from_slice(&event).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            if let Ok(bytes) = frame.into_data() {
                self.decoder.push(&bytes);
            }
        }
    }

    /// Reads until so many tokens have been generated.
    pub(crate) async fn until_generated(&mut self, tokens: u64) {
        loop {
            let frame = self.next().await.expect("the stream goes on");
            let output = frame.output.unwrap_or_else(|| panic!("{:?}", frame.error));
            assert!(!output.finished, "the answer is longer than {tokens} tokens");
            if output.num_completion_tokens.unwrap() >= tokens {
                return;
            }
        }
    }

    /// Reads what is left. The last frame says that it is, or why there is no more.
    pub(crate) async fn rest(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

/// The number of tokens of an answer that came to its proper end.
#[track_caller]
pub(crate) fn finished(frames: &[Frame]) -> u64 {
    let last = frames.last().expect("a last frame");
    let output = last.output.as_ref().unwrap_or_else(|| panic!("{:?}", last.error));
    assert!(output.finished, "{last:?}");
    output.num_completion_tokens.unwrap()
}
