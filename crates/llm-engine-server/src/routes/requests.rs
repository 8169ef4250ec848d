//! What a caller can do about its own requests, which it knows by their idempotency keys.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::{answered, new_request_id};
use crate::App;
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::replay::check_key;

/// What became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// Whether it was running.
    cancelled: bool,
}

pub(super) fn add_to(api: &mut Api) {
    let summary = "Cancels the caller's own running requests with this key, or forgets their answers";
    let operation = Operation::delete("/v1/requests/{idempotency_key}", summary).json::<Cancelled>();
    api.add(operation.keyed(Dialect::LlmEngine, &[400, 404]), cancel);
}

/// Cancels what the caller's requests with this key have begun, on whatever route, or forgets their stored answers. The key is
/// percent-encoded in the path.
async fn cancel(
    State(app): State<App>,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let request_id = new_request_id();
    // What can't be decoded is no text, which no key is either.
    let key = key.map_or(vec![0xff], |Path(key)| key.into_bytes());
    let answer = match (authorize(&app.gateway, &headers), check_key(&key)) {
        (Err(unauthorized), _) => Err(unauthorized.into()),
        (Ok(_), Err(invalid)) => Err(invalid.into()),
        (Ok(caller), Ok(key)) => app.replays.cancel(&caller, key).ok_or_else(unknown),
    };
    let answer = answer.map(|cancelled| Json(Cancelled { cancelled }).into_response());
    answered(answer, Dialect::LlmEngine, &request_id)
}

fn unknown() -> ErrorAnswer {
    let message = "No request of yours with this Idempotency-Key is running or stored.";
    ErrorAnswer::nothing_there("unknown_request", message)
}
