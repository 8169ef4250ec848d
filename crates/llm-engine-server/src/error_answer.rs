use std::io;
use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{
    CompleteError, Failure, Fault, Refusal, RefusalCode, UnknownModel, in_units, milliseconds_up,
};
use llm_engine_wire::openai::InvalidRequest;
use llm_engine_wire::validation::{Loc, Problem};
use llm_engine_wire::{v1, v2};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::authorization::Unauthorized;
use crate::batches::CreateError;
use crate::disk::is_full;
use crate::files::FileError;
use crate::replay::InvalidClaim;

/// How a route writes its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"detail": "…", "error": {…}}`
    LlmEngine,
    /// `{"error": {…}}`
    OpenAi,
}

/// Every answer that is not a success. Status, headers and body come from this one value.
#[derive(Debug)]
pub(crate) struct ErrorAnswer {
    status: StatusCode,
    error: Box<ErrorObject>,
    /// What stands under `detail` if it is more than the message.
    problems: Option<Vec<Problem>>,
    /// Whether the retry headers are sent, and what `x-should-retry` says in them.
    should_retry: Option<bool>,
    challenge: Option<&'static str>,
}

/// The body of an error on LLM Engine's routes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LlmEngineError")]
pub(crate) struct LlmEngineBody<'a> {
    detail: Detail<'a>,
    error: &'a ErrorObject,
}

/// One sentence, or everything that is wrong with the request.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Detail<'a> {
    Sentence(&'a str),
    Problems(&'a [Problem]),
}

/// The body of an error on OpenAI's routes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiError")]
pub(crate) struct OpenAiBody<'a> {
    error: &'a ErrorObject,
}

/// What went wrong: OpenAI's fields and ours.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct ErrorObject {
    code: String,
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    policy: Option<String>,
    limit: Option<Value>,
    retry_after_ms: Option<u64>,
    exact: Option<bool>,
    booked: bool,
    request_id: Option<String>,
}

const BUDGET_EXHAUSTED: &str = RefusalCode::BudgetExhausted.as_str();

impl ErrorAnswer {
    pub(crate) fn new(status: StatusCode, code: &str, kind: &'static str, message: String) -> Self {
        let error = ErrorObject {
            code: code.to_owned(),
            message,
            kind,
            param: None,
            policy: None,
            limit: None,
            retry_after_ms: None,
            exact: None,
            booked: false,
            request_id: None,
        };
        Self {
            status,
            error: Box::new(error),
            problems: None,
            should_retry: None,
            challenge: None,
        }
    }

    /// The caller's mistake, told by one sentence.
    pub(crate) fn bad_request(code: &str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "invalid_request_error", message)
    }

    /// Which field it is about.
    pub(crate) fn about(mut self, param: &str) -> Self {
        self.error.param = Some(param.to_owned());
        self
    }

    /// The caller's mistakes, all of them.
    pub(crate) fn unprocessable(problems: Vec<Problem>) -> Self {
        let message = match problems.first() {
            Some(problem) => format!("the request is invalid: {}", problem.msg),
            None => "the request is invalid".to_owned(),
        };
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut answer = Self::new(status, "invalid_request", "invalid_request_error", message);
        answer.error.param = problems.first().and_then(|problem| match problem.loc.get(1) {
            Some(Loc::Name(name)) => Some((*name).to_owned()),
            Some(Loc::Index(_)) | None => None,
        });
        Self {
            problems: Some(problems),
            ..answer
        }
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "invalid_request_error",
            message,
        )
    }

    pub(crate) fn body_too_slow(limit: Duration) -> Self {
        let message = format!("the request body has not come within {} s", limit.as_secs());
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::new(status, "body_too_slow", "invalid_request_error", message)
    }

    pub(crate) fn too_many_values(limit: usize) -> Self {
        let message = format!("the request body has more than {limit} JSON values");
        Self::bad_request("too_many_values", message)
    }

    pub(crate) fn unreadable_body(error: &axum::Error) -> Self {
        Self::bad_request(
            "invalid_request",
            format!("the request body can't be read: {error}"),
        )
    }

    /// The disk did not do what was asked of it: it is full, which another time may be over, or broken.
    pub(crate) fn disk(error: &io::Error) -> Self {
        tracing::error!(%error, "files or batches can't be written or read");
        if is_full(error) {
            let message = format!("The server has no room on its disk for this: {error}.");
            let status = StatusCode::INSUFFICIENT_STORAGE;
            return Self::new(status, "disk_full", "internal_error", message);
        }
        Self::internal(format!("The server's disk can't be used: {error}."))
    }

    /// There is nothing of the name that was given.
    pub(crate) fn nothing_there(code: &str, message: impl Into<String>) -> Self {
        let status = StatusCode::NOT_FOUND;
        Self::new(status, code, "invalid_request_error", message.into())
    }

    pub(crate) fn model_not_found(message: String) -> Self {
        Self::nothing_there("model_not_found", message)
    }

    /// A key that another request has, now or before.
    pub(crate) fn idempotency_key_reused() -> Self {
        let message = "This Idempotency-Key belongs to another request, with another query or body; send every request with \
                       a key of its own, and the same request again byte for byte.";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::permanent(status, "idempotency_key_reused", message)
    }

    /// The request was answered, or is being answered, but who asks now can't have the answer.
    pub(crate) fn answer_not_kept() -> Self {
        let message = "A request with this Idempotency-Key was generated and charged, but its answer had to make room and \
                       can't be given again; with a new key it is generated and charged anew.";
        Self::permanent(StatusCode::CONFLICT, "answer_not_kept", message)
    }

    /// The caller itself has cancelled it, perhaps by another connection.
    pub(crate) fn cancelled() -> Self {
        let message = "The request was cancelled by its caller before its answer was whole.";
        Self::permanent(StatusCode::CONFLICT, "cancelled", message)
    }

    /// More than a caller may have, until it gives something up.
    pub(crate) fn too_much(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self::permanent(status, code, message)
    }

    /// Something broke in the server itself.
    pub(crate) fn internal(message: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "internal_error", "internal_error", message)
    }

    /// The caller's mistake, or its will, that no retry mends.
    fn permanent(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            should_retry: Some(false),
            ..Self::new(status, code, "invalid_request_error", message.into())
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> &str {
        &self.error.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.error.message
    }

    /// What no server of this kind does, however often it is asked.
    pub(crate) fn not_implemented(message: String) -> Self {
        Self::permanent(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
    }

    /// What LLM Engine's routes say of any failure behind them; the log says which one it was.
    pub(crate) fn upstream_service_error(failure: &Failure, request_id: &str) -> Self {
        let message = format!("Upstream service error for request_id {request_id}");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self {
            should_retry: should_retry(failure),
            ..Self::new(status, failure.code(), "upstream_error", message)
        }
    }

    /// The answer in the route's dialect.
    pub(crate) fn in_dialect(mut self, dialect: Dialect, request_id: &str) -> Response {
        self.error.request_id = Some(request_id.to_owned());
        if dialect == Dialect::OpenAi && self.error.code == BUDGET_EXHAUSTED {
            // What OpenAI's clients know as permanent.
            self.status = StatusCode::TOO_MANY_REQUESTS;
            self.error.code = "insufficient_quota".to_owned();
        }
        let body = self.body(dialect);
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(should_retry) = self.should_retry {
            let word = HeaderValue::from_static(if should_retry { "true" } else { "false" });
            headers.insert(HeaderName::from_static("x-should-retry"), word);
        }
        if let Some(milliseconds) = self.error.retry_after_ms {
            headers.insert(RETRY_AFTER, milliseconds.div_ceil(1000).max(1).into());
            headers.insert(HeaderName::from_static("retry-after-ms"), milliseconds.into());
        }
        response
    }

    /// What is left when the answer has begun: the error as an event of OpenAI's stream.
    pub(crate) fn event(mut self, request_id: &str) -> Value {
        self.error.request_id = Some(request_id.to_owned());
        self.body(Dialect::OpenAi)
    }

    fn body(&self, dialect: Dialect) -> Value {
        let error = &self.error;
        let detail = match &self.problems {
            Some(problems) => Detail::Problems(problems),
            None => Detail::Sentence(&error.message),
        };
        match dialect {
            Dialect::OpenAi => json!(OpenAiBody { error }),
            Dialect::LlmEngine => json!(LlmEngineBody { detail, error }),
        }
    }

    fn come_back_after(mut self, wait: Duration) -> Self {
        self.error.retry_after_ms = Some(milliseconds_up(wait).max(1));
        self.should_retry = Some(true);
        self
    }
}

impl From<Unauthorized> for ErrorAnswer {
    fn from(unauthorized: Unauthorized) -> Self {
        let message = unauthorized.to_string();
        Self {
            challenge: Some(unauthorized.challenge()),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "authentication_error",
                message,
            )
        }
    }
}

impl From<InvalidClaim> for ErrorAnswer {
    fn from(invalid: InvalidClaim) -> Self {
        let code = match invalid {
            InvalidClaim::Keep | InvalidClaim::Twice(_) => "invalid_request",
            InvalidClaim::EmptyKey | InvalidClaim::LongKey(_) | InvalidClaim::OtherCharacters => {
                "invalid_idempotency_key"
            }
        };
        Self::bad_request(code, invalid.to_string())
    }
}

impl From<InvalidRequest> for ErrorAnswer {
    fn from(invalid: InvalidRequest) -> Self {
        let mut answer = Self::bad_request("invalid_request", invalid.message);
        answer.error.param = invalid.param.map(str::to_owned);
        answer
    }
}

impl From<Box<Problem>> for ErrorAnswer {
    fn from(problem: Box<Problem>) -> Self {
        Self::unprocessable(vec![*problem])
    }
}

impl From<v1::RequestError> for ErrorAnswer {
    fn from(error: v1::RequestError) -> Self {
        match error {
            v1::RequestError::Invalid(problems) => Self::unprocessable(problems),
            v1::RequestError::Refused(message) => Self::bad_request("invalid_request", message.to_owned()),
        }
    }
}

impl From<v2::RequestError> for ErrorAnswer {
    fn from(error: v2::RequestError) -> Self {
        match error {
            v2::RequestError::Invalid(problems) => Self::unprocessable(problems),
            v2::RequestError::Refused(invalid) => invalid.into(),
        }
    }
}

impl From<UnknownModel> for ErrorAnswer {
    fn from(unknown: UnknownModel) -> Self {
        Self::model_not_found(unknown.to_string())
    }
}

impl From<Refusal> for ErrorAnswer {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let kind = match refusal.code {
            RefusalCode::RateLimited | RefusalCode::Saturated => "rate_limit_error",
            RefusalCode::BudgetExhausted => "insufficient_quota",
            RefusalCode::NeverFits => "invalid_request_error",
            RefusalCode::Draining | RefusalCode::NoDeployment => "overloaded_error",
        };
        let mut answer = Self::new(status, refusal.code.as_str(), kind, refusal.message);
        answer.error.policy = refusal.policy.as_deref().map(str::to_owned);
        answer.error.limit = refusal
            .limit
            .zip(refusal.counted)
            .map(|(limit, counted)| in_units(counted, limit));
        answer.error.booked = refusal.booked;
        answer.error.exact = Some(refusal.exact);
        match refusal.retry_after {
            Some(wait) => answer.come_back_after(wait),
            None => Self {
                should_retry: Some(false),
                ..answer
            },
        }
    }
}

impl From<Failure> for ErrorAnswer {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let kind = match failure.fault() {
            Fault::Caller => "invalid_request_error",
            Fault::Upstream | Fault::Operator => "upstream_error",
        };
        let should_retry = should_retry(&failure);
        let mut answer = Self::new(status, failure.code(), kind, failure.to_string());
        let retry_after = failure.retry_after();
        if let Failure::Rejected { code, param, .. } = failure {
            answer.error.code = code.unwrap_or(answer.error.code);
            answer.error.param = param;
        }
        match retry_after {
            Some(wait) => answer.come_back_after(wait),
            None => Self {
                should_retry,
                ..answer
            },
        }
    }
}

/// What waits for its operator is not mended by callers who come again and again.
fn should_retry(failure: &Failure) -> Option<bool> {
    (failure.fault() == Fault::Operator).then_some(false)
}

impl From<FileError> for ErrorAnswer {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::TooLarge(_) => "file_too_large",
            FileError::CallerFull(_) | FileError::TooMany(_) => "storage_full",
        };
        Self::too_much(StatusCode::PAYLOAD_TOO_LARGE, code, error.to_string())
    }
}

impl From<CreateError> for ErrorAnswer {
    fn from(error: CreateError) -> Self {
        match &error {
            CreateError::Io(error) => Self::disk(error),
            CreateError::TooMany(_) => {
                Self::too_much(StatusCode::BAD_REQUEST, "too_many_batches", error.to_string())
            }
        }
    }
}

impl From<CompleteError> for ErrorAnswer {
    fn from(error: CompleteError) -> Self {
        match error {
            CompleteError::Refused(refusal) => refusal.into(),
            CompleteError::Failed(failure) => failure.into(),
        }
    }
}

/// 414 for a path and query of more bytes than this.
pub(crate) fn uri_too_long(limit: usize) -> Response {
    let message = format!("the path and query of the request are longer than {limit} bytes");
    let status = StatusCode::URI_TOO_LONG;
    ErrorAnswer::new(status, "uri_too_long", "invalid_request_error", message)
        .in_dialect(Dialect::LlmEngine, "")
}

/// 404 for a path that is no route.
pub(crate) fn not_found(path: &str) -> Response {
    let message = format!("There is no route {path}.");
    unrouted(StatusCode::NOT_FOUND, "Not Found", "unknown_route", message)
}

/// 405 for a method that the path does not have; axum has set `Allow` by then.
pub(crate) fn method_not_allowed(method: &Method, path: &str) -> Response {
    let message = format!("The route {path} has no method {method}.");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    unrouted(status, "Method Not Allowed", "method_not_allowed", message)
}

/// The public servers' words; beside them, for OpenAI's clients, which show nothing else, what they mean.
fn unrouted(status: StatusCode, detail: &str, code: &str, message: String) -> Response {
    let error = ErrorAnswer::new(status, code, "invalid_request_error", message).error;
    (status, Json(json!({ "detail": detail, "error": error }))).into_response()
}
