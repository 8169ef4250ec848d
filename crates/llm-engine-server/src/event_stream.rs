use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use llm_engine_gateway::{AnswerStream, CompleteError};
use llm_engine_wire::openai;
use llm_engine_wire::sse::{LineEnd, event};
use llm_engine_wire::translate::{to_frame, to_last_frame};
use llm_engine_wire::v1::{Frame, StreamError, StreamErrorContent};
use serde::Serialize;
use tokio::time::timeout;

use crate::error_answer::ErrorAnswer;

/// While nothing comes from the model, a comment keeps the connection open.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING: &str = ": ping\r\n\r\n";

/// How an answer is written as events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// LLM Engine's frames; the last one says that it is.
    V1,
    /// OpenAI's chunks and `[DONE]`.
    OpenAi,
}

/// How a stream ends, for whoever passes it on: an extension of its response.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    form: Form,
    request_id: Arc<str>,
    ended_well: Arc<OnceLock<bool>>,
}

/// The answer as server-sent events. Dropped before its end, it takes the running request with it, which cancels and
/// settles it. The response has its [`Ending`].
pub(crate) fn respond(answer: AnswerStream, form: Form, request_id: &str) -> Response {
    let ending = Ending {
        form,
        request_id: request_id.into(),
        ended_well: Arc::new(OnceLock::new()),
    };
    let writer = Writer {
        answer,
        ending: ending.clone(),
    };
    let body = Body::from_stream(stream::unfold(writer, |mut writer| async move {
        let bytes = writer.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), writer))
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.extensions_mut().insert(ending);
    response
}

impl Ending {
    /// Whether it was the whole answer; `None` before the end. It is known before the last piece is handed on.
    pub(crate) fn ended_well(&self) -> Option<bool> {
        self.ended_well.get().copied()
    }

    /// The last event of a stream that ends with an error.
    pub(crate) fn error_event(&self, error: ErrorAnswer) -> Bytes {
        match self.form {
            Form::V1 => {
                let content = StreamErrorContent {
                    error: error.message().to_owned(),
                    timestamp: jiff::Timestamp::now().to_string(),
                };
                let error = Some(StreamError {
                    status_code: error.status().as_u16(),
                    content,
                });
                let frame = Frame {
                    request_id: self.request_id.to_string(),
                    output: None,
                    error,
                };
                written(&frame, LineEnd::CrLf)
            }
            Form::OpenAi => written(&error.event(&self.request_id), LineEnd::Lf),
        }
    }

    /// Only the first end counts.
    fn end(&self, well: bool) {
        self.ended_well.get_or_init(|| well);
    }
}

struct Writer {
    answer: AnswerStream,
    ending: Ending,
}

impl Writer {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ending.ended_well().is_some() {
            return None;
        }
        loop {
            let Ok(next) = timeout(PING_EVERY, self.answer.next()).await else {
                return Some(Bytes::from_static(PING.as_bytes()));
            };
            match next {
                Some(Ok(event)) => {
                    if let Some(bytes) = self.event(event) {
                        return Some(bytes);
                    }
                }
                Some(Err(failure)) => {
                    self.ending.end(false);
                    return Some(self.ending.error_event(CompleteError::Failed(failure).into()));
                }
                None => {
                    self.ending.end(true);
                    return Some(self.last());
                }
            }
        }
    }

    /// `None` if the caller sees nothing of the event.
    fn event(&self, answer: llm_engine_gateway::Event) -> Option<Bytes> {
        match self.ending.form {
            Form::V1 => {
                let frame = to_frame(
                    &self.ending.request_id,
                    &answer.chunk,
                    answer.usage.completion_tokens,
                );
                let adds_something = frame
                    .output
                    .as_ref()
                    .is_some_and(|output| !output.text.is_empty() || output.token.is_some());
                adds_something.then(|| written(&frame, LineEnd::CrLf))
            }
            Form::OpenAi => answer.visible.map(|chunk| event(&chunk, LineEnd::Lf).into()),
        }
    }

    fn last(&self) -> Bytes {
        match self.ending.form {
            Form::V1 => written(
                &to_last_frame(&self.ending.request_id, self.answer.usage()),
                LineEnd::CrLf,
            ),
            Form::OpenAi => event(openai::DONE, LineEnd::Lf).into(),
        }
    }
}

fn written(message: &impl Serialize, end: LineEnd) -> Bytes {
    // Our messages serialise: their keys are strings and none of their types fails.
    event(&serde_json::to_string(message).unwrap_or_default(), end).into()
}
