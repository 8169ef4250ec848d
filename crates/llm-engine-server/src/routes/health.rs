//! Whether the server is there, and whether it can work. No key is needed, and nothing limits these.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Gateway, RouteStatus};
use serde_json::json;

use crate::App;

pub(super) async fn alive() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// 200 only if at least one model answers, asked now.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.is_draining() {
        return not_ready("the server is shutting down");
    }
    for route in gateway.routes() {
        if route.status().await == RouteStatus::Ready {
            return Json(json!({ "status": "ready" })).into_response();
        }
    }
    not_ready("no model answers")
}

/// Counters for monitoring.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], app.metrics.text()).into_response()
}

fn not_ready(reason: &str) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(json!({ "status": "not ready", "detail": reason })),
    )
        .into_response()
}
