use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, header};
use axum::response::IntoResponse;
use llm_engine_wire::openai::{Kind, Request};
use llm_engine_wire::worker::REQUEST_ID_HEADER;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::answer::AnswerForm;
use super::stream::AnswerStream;
use super::{Front, json, off_loop, read_body, unix_seconds};
use crate::cancel::CancelOnDrop;
use crate::engine::{Event, FinishReason, Submission};
use crate::generation::Generation;
use crate::refusal::Refusal;
use crate::registry::Registration;

/// The longest request id, in bytes: finished ids are remembered.
const MAX_REQUEST_ID_BYTES: usize = 256;

/// `POST /v1/chat/completions`
pub(super) async fn chat(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    generate(front, Kind::Chat, headers, body).await
}

/// `POST /v1/completions`
pub(super) async fn completion(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    generate(front, Kind::Completion, headers, body).await
}

async fn generate(
    front: Arc<Front>,
    kind: Kind,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    // Before anything else, so that a cancel can't come too early.
    let registration = register(&front, &headers)?;
    let cancel = CancelOnDrop(registration.cancel_flag());
    let body = read_body(body).await?;
    let preparing = Arc::clone(&front);
    let (form, stream, generation) = off_loop(move || prepare(&preparing, kind, &body)).await?;
    let (sender, mut events) = mpsc::unbounded_channel();
    front.intake.submit(Submission {
        generation,
        events: sender,
        registration,
    })?;
    // The status is decided by the first event: what fails before any text is a clean 500.
    let first = next_event(&mut events).await?;
    if let Event::End {
        reason: FinishReason::Failed(why),
        ..
    } = first
    {
        return Err(Refusal::failed(why));
    }
    if stream {
        let stream = AnswerStream::new(form, first, events, cancel);
        let content_type = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        return Ok((content_type, Body::from_stream(stream)).into_response());
    }
    whole(&form, first, events).await
}

/// Enters the request under the name that the gateway gave it.
fn register(front: &Front, headers: &HeaderMap) -> Result<Registration, Refusal> {
    let id = match headers.get(REQUEST_ID_HEADER) {
        None => None,
        Some(value) => match value.to_str() {
            Ok(id) if !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES => Some(id.to_owned()),
            _ => {
                let message =
                    format!("'{REQUEST_ID_HEADER}' must be 1 to {MAX_REQUEST_ID_BYTES} ASCII characters");
                return Err(Refusal::invalid(REQUEST_ID_HEADER, message));
            }
        },
    };
    front
        .registry
        .register(id.clone())
        .map_err(|_| Refusal::already_running(&id.unwrap_or_default()))
}

/// Reads and checks a request; also says whether it wants a stream.
fn prepare(front: &Front, kind: Kind, body: &[u8]) -> Result<(AnswerForm, bool, Generation), Refusal> {
    let request = Request::parse(kind, body)?;
    front.check_model(&request.model)?;
    let number = front.answers.fetch_add(1, Ordering::Relaxed);
    let prefix = match kind {
        Kind::Chat => "chatcmpl",
        Kind::Completion | Kind::Embedding => "cmpl",
    };
    let form = AnswerForm {
        kind,
        id: format!("{prefix}-{:x}-{number:x}", front.started),
        created: unix_seconds(),
        model: request.model.clone(),
        continuous_usage: request.continuous_usage,
        include_usage: request.include_usage,
    };
    let stream = request.stream;
    let generation = Generation::prepare(&front.model, front.default_max_tokens, request)?;
    Ok((form, stream, generation))
}

/// The answer in one piece.
async fn whole(
    form: &AnswerForm,
    first: Event,
    mut events: UnboundedReceiver<Event>,
) -> Result<Response<Body>, Refusal> {
    let mut answer = String::new();
    let mut event = first;
    loop {
        match event {
            Event::Progress { text, .. } => answer.push_str(&text),
            Event::End {
                reason: FinishReason::Failed(why),
                ..
            } => return Err(Refusal::failed(why)),
            Event::End { text, reason, usage } => {
                answer.push_str(&text);
                return Ok(json(&form.whole(answer, reason, usage)));
            }
        }
        event = next_event(&mut events).await?;
    }
}

async fn next_event(events: &mut UnboundedReceiver<Event>) -> Result<Event, Refusal> {
    events
        .recv()
        .await
        .ok_or_else(|| Refusal::failed("the model is not running"))
}
