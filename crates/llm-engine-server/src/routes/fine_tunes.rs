//! Fine-tuning jobs, of which there are none.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Gateway;
use serde_json::json;

use super::{named, new_request_id};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

pub(super) async fn list(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let response = match authorize(&gateway, &headers) {
        Ok(_) => Json(json!({ "jobs": [] })).into_response(),
        Err(unauthorized) => ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &request_id),
    };
    named(response, &request_id)
}

/// Whatever is asked about a job.
pub(super) async fn unknown(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = match authorize(&gateway, &headers) {
        Ok(_) => ErrorAnswer::new(
            StatusCode::NOT_FOUND,
            "fine_tune_not_found",
            "invalid_request_error",
            "The specified fine-tune could not be found.".to_owned(),
        ),
        Err(unauthorized) => unauthorized.into(),
    };
    named(answer.in_dialect(Dialect::LlmEngine, &request_id), &request_id)
}
