//! What a caller can do about its own requests, which it knows by their idempotency keys.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{answered, new_request_id, parameter};
use crate::App;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::replay::check_key;

/// For as long a cancel can reach ahead.
const MOST_AHEAD_SECONDS: u64 = 60;

/// Cancels what the caller's requests with this key have begun, on whatever route, or forgets their stored answers. The key is
/// percent-encoded in the path. With `ahead_seconds` a request that this one has overtaken, because they came by different
/// connections, is refused when it comes.
pub(super) async fn cancel(
    State(app): State<App>,
    key: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let request_id = new_request_id();
    // What can't be decoded is no text, which no key is either.
    let key = key.map_or(vec![0xff], |Path(key)| key.into_bytes());
    let answer = match (authorize(&app.gateway, &headers), check_key(&key), ahead(&uri)) {
        (Err(unauthorized), _, _) => Err(unauthorized.into()),
        (Ok(_), Err(invalid), _) => Err(invalid.into()),
        (Ok(_), Ok(_), Err(wrong)) => Err(ErrorAnswer::bad_request("invalid_request", wrong)),
        (Ok(caller), Ok(key), Ok(ahead)) => app.replays.cancel(&caller, key, ahead).ok_or_else(unknown),
    };
    let answer = answer.map(|cancelled| Json(json!({ "cancelled": cancelled })).into_response());
    answered(answer, Dialect::LlmEngine, &request_id)
}

/// What is wrong with it is told in a sentence.
fn ahead(uri: &Uri) -> Result<Duration, String> {
    let Some(seconds) = parameter(uri, "ahead_seconds") else {
        return Ok(Duration::ZERO);
    };
    let seconds = seconds.parse().ok();
    let seconds = seconds.filter(|seconds| *seconds <= MOST_AHEAD_SECONDS);
    let wrong = || format!("ahead_seconds must be a whole number from 0 to {MOST_AHEAD_SECONDS}.");
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn unknown() -> ErrorAnswer {
    let message = "No request of yours with this Idempotency-Key is running or stored.";
    ErrorAnswer::nothing_there("unknown_request", message)
}
