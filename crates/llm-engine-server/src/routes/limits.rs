//! What callers can see of their limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Caller, Gateway, Level, ROUTES, Route, in_units, milliseconds_up, unit_name};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;
use serde_json::Value;

use super::{Named, answered, new_request_id};
use crate::App;
use crate::api::{Api, Operation};
use crate::arrival::arrival;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

/// How a caller's limits stand.
#[derive(Debug, Serialize, JsonSchema)]
struct CallerLimits {
    /// Always `list`.
    object: &'static str,
    /// Whose they are.
    caller: String,
    /// One entry for each model.
    data: Vec<ModelLimits>,
}

/// How the limits of requests for a model stand.
#[derive(Debug, Serialize, JsonSchema)]
struct ModelLimits {
    /// The model.
    model: String,
    /// The quotas that such requests meet.
    limits: Vec<QuotaLevel>,
}

/// How a quota stands.
#[derive(Debug, Serialize, JsonSchema)]
struct QuotaLevel {
    /// The policy that it belongs to.
    policy: String,
    /// The route that it is for; null: all.
    route: Option<&'static str>,
    /// What is counted.
    counts: &'static str,
    /// The limit: a number, in dollars if money is counted.
    limit: Value,
    /// The limit and its window, for a person.
    limit_in_words: String,
    /// What could be taken now.
    remaining: Value,
    /// When all of it could be, in milliseconds.
    full_in_ms: u64,
}

pub(super) fn add_to(api: &mut Api) {
    let list = Operation::get("/v1/limits", "How the caller's limits stand, for each model");
    api.add(
        list.json::<CallerLimits>().keyed(Dialect::LlmEngine, &[]),
        self::list,
    );
    let explain = Operation::get(
        "/v1/limits/explain/{request_id}",
        "What every policy saw of a request: an own one, or for operators any",
    );
    let explain = explain.answers("application/json", |_| explanation());
    api.add(explain.keyed(Dialect::LlmEngine, &[404]), self::explain);
}

/// The schema of what [`llm_engine_gateway::Explanation::to_json`] writes.
fn explanation() -> Schema {
    let cost =
        json_schema!({ "type": "object", "required": ["requests", "input_tokens", "output_tokens", "usd"] });
    json_schema!({
        "type": "object",
        "required": ["request_id", "caller", "model", "route", "time", "outcome", "status", "policies", "explanation"],
        "properties": {
            "request_id": { "type": "string" },
            "caller": { "type": "string" },
            "model": { "type": "string" },
            "route": { "type": "string" },
            "time": { "type": "string", "format": "date-time" },
            "outcome": { "type": "string", "description": "How it ended, in a word" },
            "status": { "type": "integer" },
            "asked": cost,
            "charged": cost,
            "held_ms": { "type": "integer" },
            "policies": { "type": "array", "items": {
                "type": "object",
                "required": ["policy", "counts", "limit", "remaining_before", "asked", "verdict"],
                "properties": { "verdict": { "enum": ["admits", "refuses", "would_refuse"] } },
            }},
            "refusal": { "type": ["object", "null"], "required": ["code", "message"] },
            "explanation": { "type": "string", "description": "All of it, for a person" },
        },
    })
}

/// How the caller's limits stand, for each model.
async fn list(State(app): State<App>, parts: Parts) -> Response {
    let request_id = new_request_id();
    let answer = authorize(&app.gateway, &parts.headers).map(|caller| {
        let models = app.gateway.routes().iter().map(|model| ModelLimits {
            model: model.name.to_string(),
            limits: limits(&app, &caller, model, &parts, &request_id),
        });
        let data = models.collect();
        let answer = CallerLimits {
            object: "list",
            caller: caller.name.to_string(),
            data,
        };
        Json(answer).into_response()
    });
    answered(answer, Dialect::LlmEngine, &request_id)
}

/// How those stand that a request for the model would meet if it came from where this one comes. A policy for one HTTP
/// route, or that counts each apart, is listed for every one that it applies to.
fn limits(app: &App, caller: &Caller, model: &Route, parts: &Parts, request_id: &str) -> Vec<QuotaLevel> {
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

fn level(level: &Level, route: Option<&'static str>) -> QuotaLevel {
    QuotaLevel {
        policy: level.policy.to_string(),
        route,
        counts: unit_name(level.counted),
        limit: in_units(level.counted, level.limit),
        limit_in_words: level.counted.amount(level.limit),
        remaining: in_units(level.counted, level.remaining),
        full_in_ms: milliseconds_up(level.full_in),
    }
}

/// What every policy saw of a request. Callers can ask for their own requests, operators for all.
async fn explain(
    State(gateway): State<Arc<Gateway>>,
    Named(asked_for): Named,
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
