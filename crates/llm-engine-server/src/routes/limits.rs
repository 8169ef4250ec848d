//! What callers can see of their limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Caller, Gateway, Level, ROUTES, Route, in_units, milliseconds_up, unit_name};
use serde_json::{Value, json};

use super::{answered, new_request_id};
use crate::App;
use crate::arrival::arrival;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

/// How the caller's limits stand, for each model.
pub(super) async fn list(State(app): State<App>, parts: Parts) -> Response {
    let request_id = new_request_id();
    let answer = authorize(&app.gateway, &parts.headers).map(|caller| {
        let models = app.gateway.routes().iter().map(|model| {
            let limits = limits(&app, &caller, model, &parts, &request_id);
            json!({ "model": model.name, "limits": limits })
        });
        Json(json!({ "object": "list", "caller": *caller.name, "data": models.collect::<Vec<_>>() }))
            .into_response()
    });
    answered(answer, Dialect::LlmEngine, &request_id)
}

/// How those stand that a request for the model would meet if it came from where this one comes. A policy for one HTTP
/// route, or that counts each apart, is listed for every one that it applies to.
fn limits(app: &App, caller: &Caller, model: &Route, parts: &Parts, request_id: &str) -> Vec<Value> {
    let policies = app.gateway.policies();
    let is_of_a_route = |level: &Level| {
        let mut policies = policies.iter().filter(|policy| *policy.name == *level.policy);
        policies.any(|policy| policy.per.route || policy.matches.route.is_some())
    };
    let mut limits = Vec::new();
    for route in ROUTES {
        let arrival = arrival(parts, &[], None, (route, request_id), &app.trusted_proxies);
        for level in app.gateway.levels(caller, model, &arrival) {
            if is_of_a_route(&level) {
                limits.push(self::level(&level, Some(route)));
            } else if *route == ROUTES[0] {
                limits.push(self::level(&level, None));
            }
        }
    }
    limits
}

fn level(level: &Level, route: Option<&str>) -> Value {
    json!({
        "policy": *level.policy,
        "route": route,
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
    let answer = match authorize(&gateway, &headers) {
        Ok(caller) => match gateway.explain(&asked_for) {
            Some(explanation) if caller.is_operator || explanation.caller == caller.name => {
                Ok(Json(explanation.to_json()).into_response())
            }
            // Whether another caller's request has this id is nobody's business.
            _ => Err(unknown(&asked_for)),
        },
        Err(unauthorized) => Err(unauthorized.into()),
    };
    answered(answer, Dialect::LlmEngine, &request_id)
}

fn unknown(asked_for: &str) -> ErrorAnswer {
    let message = format!(
        "There is no request {asked_for} of yours among the latest; explanations are kept in memory for a while after a \
         request has ended."
    );
    ErrorAnswer::nothing_there("unknown_request", message)
}
