//! What an upstream's answer means if it is no success, and whose mistake that is.
//!
//! A caller hears an upstream's own words only about its own request. What is between us and the upstream is told in our
//! words, since those of the upstream may quote our credential.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use llm_engine_retry::Hint;
use llm_engine_wire::object::Object;
use llm_engine_wire::openai::Kind;
use llm_engine_wire::said::Said;
use tokio::time::timeout;

use crate::Failure;
use crate::clients::UpstreamBody;

/// The longest error message that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How long it may take to come, once the head is here.
const ERROR_BODY: Duration = Duration::from_secs(5);
/// What to wait after a 429 without a hint.
const COOLDOWN: Duration = Duration::from_secs(1);
/// A longer hint is a mistake.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 60 * 60);

/// What providers say when an account has no money left, with whatever status.
const OUT_OF_MONEY: [&str; 4] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_credits",
];

/// Passes a success on and turns everything else into a failure. `stream`: whether it has to be a stream; `None`: either will do.
/// `wall_clock` shows the time of day, which some hints name.
pub(crate) async fn refuse_errors(
    response: Response<UpstreamBody>,
    (kind, stream): (Kind, Option<bool>),
    wall_clock: fn() -> Timestamp,
) -> Result<Response<UpstreamBody>, Failure> {
    let status = response.status();
    if status.is_success() {
        return match surprise(response.headers(), stream) {
            None => Ok(response),
            Some(surprise) => {
                let said = Box::pin(said(response)).await;
                Err(Failure::Broken(in_its_words(surprise, said)))
            }
        };
    }
    let hint = hint(response.headers(), wall_clock());
    let said = Box::pin(said(response)).await;
    let is = |words: &[&str]| {
        let code = said.code.as_deref().into_iter().chain(said.kind.as_deref());
        code.into_iter().any(|code| words.contains(&code))
    };
    if status == StatusCode::PAYMENT_REQUIRED || is(&OUT_OF_MONEY) {
        let reason = format!("its account there has no money left (status {status})");
        return Err(Failure::Misconfigured(reason));
    }
    if is(&["invalid_api_key", "model_not_found"]) {
        return Err(misconfigured(status, "check its url, model and api_key_env"));
    }
    Err(match status {
        // Not every model can; what a deployment that is asked for it has no route for, its model can't.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
            if kind == Kind::Embedding =>
        {
            let reason = said.message.unwrap_or_else(|| format!("status {status}"));
            Failure::Rejected {
                message: format!("the model makes no embeddings: {reason}"),
                code: Some("no_embeddings".to_owned()),
                param: Some("model".to_owned()),
            }
        }
        StatusCode::TOO_MANY_REQUESTS => Failure::Limited {
            retry_after: hint
                .or(said.retry_after)
                .map_or(COOLDOWN, |wait| wait.min(LONGEST_HINT)),
        },
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            let message = said.message;
            Failure::Rejected {
                message: message
                    .unwrap_or_else(|| format!("the model server refuses the request with status {status}")),
                code: said.code,
                param: said.param,
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => misconfigured(status, "check its api_key_env"),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            misconfigured(status, "check the proxy's user and password")
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => {
            misconfigured(status, "check its url and model")
        }
        status if status.is_redirection() => misconfigured(
            status,
            "redirects are not followed, so its url must be where the API is",
        ),
        status => Failure::Broken(in_its_words(format!("status {status}"), said)),
    })
}

/// The failure that an answer is, or an event of one, although its head was good.
pub(crate) fn error_in(answer: &Object) -> Option<Failure> {
    let error = answer.value("error").filter(|error| !error.is_null())?;
    let message = Said::from_error(error).message;
    Some(Failure::Broken(
        message.unwrap_or_else(|| "its answer is an error".to_owned()),
    ))
}

fn misconfigured(status: StatusCode, what_to_do: &str) -> Failure {
    Failure::Misconfigured(format!("status {status}; {what_to_do}"))
}

fn in_its_words(what: String, said: Said) -> String {
    match said.message {
        Some(message) => format!("{what}: {message}"),
        None => what,
    }
}

/// What the body of an error says, if that comes in time and is no page for people.
async fn said(response: Response<UpstreamBody>) -> Said {
    let is_page = media_type(response.headers()).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
    if is_page {
        return Said::default();
    }
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect();
    match timeout(ERROR_BODY, body).await {
        Ok(Ok(body)) => Said::read(&body.to_bytes()),
        Ok(Err(_)) | Err(_) => Said::default(),
    }
}

/// A success that is not what was asked for. Servers that don't name a type, or an odd one, may be right all the same.
fn surprise(headers: &HeaderMap, stream: Option<bool>) -> Option<String> {
    let kind = media_type(headers)?;
    let is = |other: &str| kind.eq_ignore_ascii_case(other);
    let surprise = match stream {
        _ if is("text/html") => "it answered with a page for people (text/html)",
        Some(true) if is("application/json") => "it did not stream although it was asked to",
        Some(false) if is("text/event-stream") => "it streamed although it was not asked to",
        _ => return None,
    };
    Some(surprise.to_owned())
}

/// Whether it is one whole answer.
pub(crate) fn is_whole(response: &Response<UpstreamBody>) -> bool {
    media_type(response.headers()).is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// The wait that the headers of a 429 ask for.
fn hint(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let since_unix_epoch = Duration::try_from(now.as_duration()).unwrap_or_default();
    let header = |name: &str| headers.get(name)?.to_str().ok();
    Hint::from_headers(header, since_unix_epoch).map(|hint| hint.after)
}
