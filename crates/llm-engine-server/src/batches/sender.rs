//! What becomes of one row: it goes the way of every request, as its caller, but at lower priority, and waits for as long as it is
//! told to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use llm_engine_batch::{Answer, Consequence, Failed, Request as RowRequest, Row, RowError, Usage, Work};
use llm_engine_gateway::{
    Admitted, AnswerBody, Arrival, CompleteError, Failure, Fault, Gateway, Name, Priority, ROUTES,
    RefusalCode, Route,
};
use llm_engine_wire::openai::{Kind, Request, Response};
use llm_engine_wire::translate::{to_openai, to_sync_response};
use llm_engine_wire::v1::CompletionRequest;
use llm_engine_wire::v2;
use llm_engine_wire::validation::Body;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::record::{Asked, Record, Rows};
use crate::error_answer::ErrorAnswer;

/// Sends the rows of one batch.
pub(super) struct Sender {
    gateway: Arc<Gateway>,
    id: String,
    owner: String,
    address: IpAddr,
    form: Form,
    /// For each model: whose turn it is to ask. Who is told to wait keeps its turn, and the others stand behind it, so that of
    /// a caller's quota a batch has no more than one time booked.
    turns: HashMap<Name, Mutex<()>>,
    /// From now on no row begins.
    stop: CancellationToken,
}

/// What rows are, and so what their answers are.
#[derive(Debug, Clone, Copy)]
enum Form {
    OpenAi(Kind, &'static str),
    LlmEngine(Rows),
}

/// A row that can be sent.
struct Ready {
    request: Request,
    model: Arc<Route>,
    /// The HTTP route that it would have come by, as policies name it.
    path: &'static str,
    bytes: usize,
}

/// Longer than any booked time is away: the gateway holds a row until it is there.
const HOLD: Duration = Duration::from_secs(60);
/// How often it is asked whether a budget that is spent is there again: calendars turn, and operators give more.
const LOOK_AT_BUDGET: Duration = Duration::from_secs(60);

impl Sender {
    pub(super) fn new(gateway: &Arc<Gateway>, record: &Record, stop: CancellationToken) -> Self {
        let names = gateway
            .routes()
            .iter()
            .map(|route| (route.name, Mutex::default()));
        Self {
            id: record.id.clone(),
            owner: record.owner.clone(),
            address: record.address,
            form: Form::of(&record.asked),
            turns: names.collect(),
            stop,
            gateway: Arc::clone(gateway),
        }
    }

    fn ready(&self, row: &Row) -> Result<Ready, Failed> {
        let mut fields = row.fields.clone();
        // The answer is one row: nobody would see its pieces.
        fields.remove("stream");
        fields.remove("stream_options");
        let model = self
            .gateway
            .resolve(row.model())
            .map_err(|error| refused(error.into()))?;
        let (request, path) = match self.form {
            Form::OpenAi(kind, path) => {
                let request = Request::from_fields(kind, fields).and_then(|request| {
                    request.check_stop_count()?;
                    Ok(request)
                });
                (request.map_err(|error| refused(error.into()))?, path)
            }
            Form::LlmEngine(Rows::Prompts) => {
                let body = Body::Json(fields.into());
                let request = CompletionRequest::read(Some(row.model()), &body);
                let request = request.map_err(|error| refused(error.into()))?;
                let request = to_openai(&request, model.chat_template_for_prompts);
                let mut request = request.map_err(|error| refused(error.into()))?;
                request.stream = true;
                (request, ROUTES[0])
            }
            Form::LlmEngine(Rows::Requests) => {
                let (kind, path) = if fields.contains_key("messages") {
                    (Kind::Chat, ROUTES[4])
                } else {
                    (Kind::Completion, ROUTES[5])
                };
                let request = v2::read(kind, &Body::Json(fields.into()));
                (request.map_err(|error| refused(error.into()))?, path)
            }
        };
        Ok(Ready {
            request,
            model: Arc::clone(model),
            path,
            bytes: row.bytes,
        })
    }

    /// Waits, for as long as it takes, until the row may be sent.
    async fn admitted<'a>(&'a self, ready: &'a Ready, request_id: &'a str) -> Result<Admitted<'a>, Failed> {
        let user = ready.request.field("user").and_then(Value::as_str);
        let arrival = Arrival {
            address: self.address,
            user,
            wait: HOLD,
            bytes: ready.bytes,
            ..Arrival::local(request_id, ready.path)
        };
        let _turn = match self.turns.get(&ready.model.name) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        loop {
            let caller = self.gateway.caller(&self.owner).ok_or_else(|| Failed {
                error: RowError::new("unknown_caller", "the batch's caller is not configured any more"),
                consequence: Consequence::EndRun,
                may_be_done: false,
            })?;
            let admitted =
                self.gateway
                    .admit(&caller, &ready.model, &ready.request, &arrival, Priority::Batch);
            match admitted.await {
                Ok(admitted) => return Ok(admitted),
                Err(error) => sleep(wait_after(&error).ok_or_else(|| failed(error))?).await,
            }
        }
    }

    /// Does this, unless no row is to begin any more.
    async fn unless_stopped<T>(&self, waiting: impl Future<Output = T>) -> Result<T, Failed> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(later(RowError::new("stopped", "the batch was stopped"))),
            waited = waiting => Ok(waited),
        }
    }
}

impl Work for Sender {
    async fn send(&self, request: RowRequest) -> Result<Answer, Failed> {
        let ready = self.ready(&request.row)?;
        let request_id = format!("{}-{}", self.id, request.row.number + 1);
        loop {
            let admitted = self.unless_stopped(self.admitted(&ready, &request_id)).await??;
            let answered = match admitted.answer().await {
                Ok(body) => self.form.answer(body, &request_id).await,
                Err(error) => Err(error),
            };
            let error = match answered {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = wait_after(&error).ok_or_else(|| failed(error))?;
            self.unless_stopped(sleep(wait)).await?;
        }
    }
}

/// How long to wait for another attempt that uses up none, if that is what there is to do.
fn wait_after(error: &CompleteError) -> Option<Duration> {
    match error {
        CompleteError::Refused(refusal) if refusal.code == RefusalCode::BudgetExhausted => {
            Some(LOOK_AT_BUDGET)
        }
        error => error.retry_after(),
    }
}

/// What follows from an error after which there is nothing to wait for.
fn failed(error: CompleteError) -> Failed {
    let consequence = match &error {
        CompleteError::Failed(Failure::CutOff) => Consequence::ComeAgain,
        CompleteError::Failed(failure) if failure.fault() != Fault::Caller => Consequence::TryAgain,
        CompleteError::Failed(_) | CompleteError::Refused(_) => Consequence::EndRow,
    };
    Failed {
        consequence,
        ..refused(error.into())
    }
}

/// The row would fail again, with the words of the route that it would have come by.
fn refused(answer: ErrorAnswer) -> Failed {
    Failed {
        error: RowError {
            code: answer.code().to_owned(),
            message: answer.message().to_owned(),
            status: Some(answer.status().as_u16()),
        },
        consequence: Consequence::EndRow,
        may_be_done: false,
    }
}

fn later(error: RowError) -> Failed {
    Failed {
        error,
        consequence: Consequence::ComeAgain,
        may_be_done: false,
    }
}

/// What is read of a whole answer.
#[derive(Deserialize)]
struct Used {
    usage: Option<llm_engine_wire::openai::Usage>,
}

impl Form {
    fn of(asked: &Asked) -> Self {
        match asked {
            Asked::LlmEngine { rows, .. } => Self::LlmEngine(*rows),
            Asked::OpenAi { endpoint, .. } => match endpoint.as_str() {
                "/v1/completions" => Self::OpenAi(Kind::Completion, ROUTES[3]),
                "/v1/embeddings" => Self::OpenAi(Kind::Embedding, ROUTES[6]),
                _ => Self::OpenAi(Kind::Chat, ROUTES[2]),
            },
        }
    }

    /// The body that the route would have answered with.
    async fn answer(self, body: AnswerBody, request_id: &str) -> Result<Answer, CompleteError> {
        let (response, usage) = match body {
            AnswerBody::Stream(answer) => {
                let response = answer.collect().await?;
                (self.written(&response, request_id)?, response.usage)
            }
            AnswerBody::Whole(text) => {
                let used: Used = serde_json::from_str(&text).map_err(|error| broken(&error))?;
                (on_one_line(text)?, used.usage.unwrap_or_default())
            }
        };
        Ok(Answer {
            response: Some(response),
            request_id: Some(request_id.to_owned()),
            usage: Usage {
                input_tokens: usage.prompt_tokens,
                output_tokens: usage.completion_tokens,
                nano_usd: 0,
            },
            ..Answer::default()
        })
    }

    fn written(self, response: &Response, request_id: &str) -> Result<Box<RawValue>, CompleteError> {
        match self {
            Self::LlmEngine(Rows::Prompts) => raw(&to_sync_response(request_id, response).output),
            Self::OpenAi(..) | Self::LlmEngine(Rows::Requests) => raw(response),
        }
    }
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, CompleteError> {
    to_raw_value(value).map_err(|error| broken(&error))
}

fn on_one_line(text: String) -> Result<Box<RawValue>, CompleteError> {
    if text.contains(['\n', '\r']) {
        let value: Value = serde_json::from_str(&text).map_err(|error| broken(&error))?;
        return raw(&value);
    }
    RawValue::from_string(text).map_err(|error| broken(&error))
}

fn broken(error: &serde_json::Error) -> CompleteError {
    Failure::Broken(format!("its answer is no JSON: {error}")).into()
}
