//! Fine-tuning jobs, of which there are none.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Gateway;
use serde_json::json;

use super::{answered, new_request_id};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

pub(super) async fn list(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = authorize(&gateway, &headers).map(|_| Json(json!({ "jobs": [] })).into_response());
    answered(answer, Dialect::LlmEngine, &request_id)
}

/// Whatever is asked about a job.
pub(super) async fn unknown(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = match authorize(&gateway, &headers) {
        Ok(_) => ErrorAnswer::nothing_there(
            "fine_tune_not_found",
            "The specified fine-tune could not be found.",
        ),
        Err(unauthorized) => unauthorized.into(),
    };
    answered(Err(answer), Dialect::LlmEngine, &request_id)
}
