//! Whether the server is there, and whether it can work. No key is needed, and nothing limits these.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Gateway, RouteStatus};
use schemars::JsonSchema;
use serde::Serialize;

use crate::App;
use crate::api::{Api, Operation};

/// How the server is.
#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    /// In a word or two.
    status: &'static str,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

pub(super) fn add_to(api: &mut Api) {
    for path in ["/healthz", "/healthcheck"] {
        let operation = Operation::get(path, "Whether the server is there").tagged("Server");
        api.add(operation.json::<Health>(), alive);
    }
    let readiness = Operation::get("/readyz", "Whether a model answers").tagged("Server");
    api.add(readiness.json::<Health>().also(503), ready);
    let metrics = Operation::get("/metrics", "Counters for Prometheus").tagged("Server");
    api.add(metrics.text("application/openmetrics-text"), self::metrics);
}

const fn health(status: &'static str, detail: Option<&'static str>) -> Json<Health> {
    Json(Health { status, detail })
}

async fn alive() -> Response {
    health("ok", None).into_response()
}

/// 200 only if at least one model answers, asked now.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.is_draining() {
        return not_ready("the server is shutting down");
    }
    for route in gateway.routes() {
        if route.status().await == RouteStatus::Ready {
            return health("ready", None).into_response();
        }
    }
    not_ready("no model answers")
}

/// Counters for monitoring.
async fn metrics(State(app): State<App>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    app.gateway.look();
    if let Some(batches) = &app.batches {
        batches.look();
    }
    ([(CONTENT_TYPE, content_type)], app.metrics.text()).into_response()
}

fn not_ready(reason: &'static str) -> Response {
    let answer = health("not ready", Some(reason));
    (StatusCode::SERVICE_UNAVAILABLE, answer).into_response()
}
