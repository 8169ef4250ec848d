use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, header};
use axum::response::IntoResponse;
use llm_engine_wire::openai::{self, Kind, Request};
use llm_engine_wire::worker::REQUEST_ID_HEADER;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::answer::{AnswerForm, Said};
use super::stream::AnswerStream;
use super::{Front, json, off_loop, read_body, unix_seconds};
use crate::cancel::CancelOnDrop;
use crate::engine::{Event, FinishReason, Submission};
use crate::generation::Generation;
use crate::guided::Form;
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
    let Prepared {
        answer_form,
        stream,
        mut generation,
        form,
    } = off_loop(move || prepare(&preparing, kind, &body)).await?;
    if let Some(form) = form {
        generation.guide = Some(front.compiler.guide(&form).await?);
    }
    let (sender, mut events) = mpsc::unbounded_channel();
    front.intake.submit(Submission {
        generation,
        events: sender,
        registration,
    })?;
    // The status is decided by the first event: what fails before any text is a clean 500.
    let first = next_event(&mut events).await?;
    if let Some(FinishReason::Failed(why)) = first.reason {
        return Err(Refusal::failed(why));
    }
    if stream {
        let stream = AnswerStream::new(answer_form, first, events, cancel);
        let content_type = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        return Ok((content_type, Body::from_stream(stream)).into_response());
    }
    whole(answer_form, first, events).await
}

/// Enters the request under the name that the gateway gave it.
pub(super) fn register(front: &Front, headers: &HeaderMap) -> Result<Registration, Refusal> {
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

/// A request that was read and checked.
struct Prepared {
    answer_form: AnswerForm,
    stream: bool,
    generation: Generation,
    /// What the answers must look like, still to be compiled.
    form: Option<Form>,
}

fn prepare(front: &Front, kind: Kind, body: &[u8]) -> Result<Prepared, Refusal> {
    let request = Request::parse(kind, body)?;
    front.check_model(&request.model)?;
    let (generation, form) = Generation::prepare(&front.model, front.default_max_tokens, &request)?;
    let number = front.answers.fetch_add(1, Ordering::Relaxed);
    let prefix = match kind {
        Kind::Chat => "chatcmpl",
        Kind::Completion | Kind::Embedding => "cmpl",
    };
    let answer_form = AnswerForm {
        kind,
        id: format!("{prefix}-{:x}-{number:x}", front.started),
        created: unix_seconds(),
        model_name: request.model.clone(),
        continuous_usage: request.continuous_usage,
        include_usage: request.include_usage,
        model: Arc::clone(&front.model),
        said: vec![Said::default(); generation.choices()],
    };
    Ok(Prepared {
        answer_form,
        stream: request.stream,
        generation,
        form,
    })
}

/// All answers in one piece.
async fn whole(
    mut form: AnswerForm,
    first: Event,
    mut events: UnboundedReceiver<Event>,
) -> Result<Response<Body>, Refusal> {
    let mut response = openai::Response::empty(form.kind);
    let mut event = first;
    loop {
        if let Some(FinishReason::Failed(why)) = event.reason {
            return Err(Refusal::failed(why));
        }
        let (usage, is_last) = (event.usage, event.is_last);
        response.append(form.event(event));
        if is_last {
            response.usage = usage;
            return Ok(json(&response));
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
