//! The engine's face: as much of OpenAI's dialect as a gateway speaks.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::batch::{Batch, Piece};
use crate::prompt::{Message, chat_tokens, text_tokens};
use crate::running::Running;

/// The fields of a request that matter here.
#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    /// How long the answer is, if it may be as long.
    mock_output_tokens: Option<u64>,
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What an answer says when it ends.
#[derive(Debug, Clone, Copy)]
struct Usage {
    input: u64,
    output: u64,
    is_cut: bool,
}

/// How a route's answers look.
#[derive(Debug)]
struct Form {
    chunk: &'static str,
    whole: &'static str,
    token: &'static str,
}

const CHAT: Form = Form {
    chunk: "chat.completion.chunk",
    whole: "chat.completion",
    token: "data: {\"id\":\"mock-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n",
};
const TEXT: Form = Form {
    chunk: "text_completion",
    whole: "text_completion",
    token: "data: {\"id\":\"mock-1\",\"object\":\"text_completion\",\"created\":1,\"model\":\"mock\",\"choices\":[{\"index\":0,\"text\":\" word\",\"finish_reason\":null}]}\n\n",
};
const WORD: &str = " word";

/// Tokens of an answer, where a request says nothing about it.
const OUTPUT: u64 = 16;

pub(crate) fn router(batch: Arc<Batch>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .with_state(batch)
}

async fn models() -> Json<Value> {
    let model = json!({ "id": "mock", "object": "model", "created": 1, "owned_by": "mock" });
    Json(json!({ "object": "list", "data": [model] }))
}

async fn chat(State(batch): State<Arc<Batch>>, Json(request): Json<Request>) -> Response {
    match &request.messages {
        Some(messages) => answer(batch, &request, chat_tokens(messages), &CHAT).await,
        None => missing("messages"),
    }
}

async fn completion(State(batch): State<Arc<Batch>>, Json(request): Json<Request>) -> Response {
    match &request.prompt {
        Some(prompt) => answer(batch, &request, text_tokens(prompt), &TEXT).await,
        None => missing("prompt"),
    }
}

fn missing(name: &str) -> Response {
    let message = format!("'{name}' is missing");
    (
        StatusCode::BAD_REQUEST,
        Json(json!({ "error": { "message": message } })),
    )
        .into_response()
}

async fn answer(batch: Arc<Batch>, request: &Request, input: u64, form: &'static Form) -> Response {
    let most = request.max_completion_tokens.or(request.max_tokens);
    let wanted = request.mock_output_tokens.unwrap_or(OUTPUT).max(1);
    let output = most.map_or(wanted, |most| wanted.min(most));
    let usage = Usage {
        input,
        output,
        is_cut: output < wanted,
    };
    let mut running = Running::submit(batch, input, output).await;
    if request.stream {
        let include_usage = request
            .stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage);
        return stream(running, usage, include_usage, form);
    }
    while running.next().await != Piece::End {}
    Json(whole(usage, form)).into_response()
}

fn stream(running: Running, usage: Usage, include_usage: bool, form: &'static Form) -> Response {
    let pieces = stream::unfold(Some(running), move |running| async move {
        let mut running = running?;
        let (bytes, running) = match running.next().await {
            Piece::Token => (Bytes::from_static(form.token.as_bytes()), Some(running)),
            Piece::End => (ending(usage, include_usage, form).into(), None),
        };
        Some((Ok::<_, Infallible>(bytes), running))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// The chunk that says why the answer ends, the usage, and the end.
fn ending(usage: Usage, include_usage: bool, form: &Form) -> String {
    let mut choice = usage.choice();
    if form.chunk == CHAT.chunk {
        choice["delta"] = json!({});
    } else {
        choice["text"] = "".into();
    }
    let mut chunk = answered(form.chunk, &json!([choice]));
    let mut events = format!("data: {chunk}\n\n");
    if include_usage {
        chunk["choices"] = json!([]);
        chunk["usage"] = usage.json();
        events += &format!("data: {chunk}\n\n");
    }
    events + "data: [DONE]\n\n"
}

fn whole(usage: Usage, form: &Form) -> Value {
    let text = WORD.repeat(usize::try_from(usage.output).unwrap_or(0));
    let mut choice = usage.choice();
    if form.whole == CHAT.whole {
        choice["message"] = json!({ "role": "assistant", "content": text });
    } else {
        choice["text"] = text.into();
    }
    let mut answer = answered(form.whole, &json!([choice]));
    answer["usage"] = usage.json();
    answer
}

fn answered(object: &str, choices: &Value) -> Value {
    json!({ "id": "mock-1", "object": object, "created": 1, "model": "mock", "choices": choices })
}

impl Usage {
    fn choice(self) -> Value {
        json!({ "index": 0, "finish_reason": if self.is_cut { "length" } else { "stop" } })
    }

    fn json(self) -> Value {
        let Self { input, output, .. } = self;
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
    }
}
