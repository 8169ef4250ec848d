//! What callers can see of their limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Arrival, Gateway, Level, ROUTES, in_units, milliseconds_up, unit_name};
use serde_json::{Value, json};

use super::{named, new_request_id};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

/// How the caller's limits stand, for each model.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let response = match authorize(&gateway, &headers) {
        Ok(caller) => {
            let models = gateway.routes().iter().map(|route| {
                // Of an address or a user nothing is known before a request comes.
                let arrival = Arrival::local(&request_id, ROUTES[0]);
                let levels = gateway.levels(&caller, route, &arrival);
                let limits: Vec<Value> = levels.iter().map(level).collect();
                json!({ "model": route.name, "limits": limits })
            });
            Json(json!({ "object": "list", "caller": *caller.name, "data": models.collect::<Vec<_>>() }))
                .into_response()
        }
        Err(unauthorized) => ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &request_id),
    };
    named(response, &request_id)
}

fn level(level: &Level) -> Value {
    json!({
        "policy": *level.policy,
        "counts": unit_name(level.counted),
        "limit": in_units(level.counted, level.limit),
        "limit_in_words": level.counted.amount(level.limit),
        "remaining": in_units(level.counted, level.remaining),
        "full_in_ms": milliseconds_up(level.full_in),
    })
}

/// What every policy saw of a request. Callers can ask for their own requests, operators for all.
pub(super) async fn explain(
    State(gateway): State<Arc<Gateway>>,
    Path(asked_for): Path<String>,
    headers: HeaderMap,
) -> Response {
    let request_id = new_request_id();
    let response = match authorize(&gateway, &headers) {
        Ok(caller) => match gateway.explain(&asked_for) {
            Some(explanation) if caller.is_operator || explanation.caller == caller.name => {
                Json(explanation.to_json()).into_response()
            }
            // Whether another caller's request has this id is nobody's business.
            _ => unknown(&asked_for, &request_id),
        },
        Err(unauthorized) => ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &request_id),
    };
    named(response, &request_id)
}

fn unknown(asked_for: &str, request_id: &str) -> Response {
    let message = format!(
        "There is no request {asked_for} of yours among the latest; explanations are kept in memory for a while after a \
         request has ended."
    );
    ErrorAnswer::new(
        StatusCode::NOT_FOUND,
        "unknown_request",
        "invalid_request_error",
        message,
    )
    .in_dialect(Dialect::LlmEngine, request_id)
}
