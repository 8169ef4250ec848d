//! The models as LLM Engine's own API lists them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Gateway, Route, RouteStatus};
use llm_engine_wire::v1::{Endpoint, EndpointList, EndpointStatus};
use serde::Deserialize;

use super::new_request_id;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

#[derive(Debug, Deserialize)]
pub(super) struct ListParameters {
    name: Option<String>,
    order_by: Option<OrderBy>,
}

/// The configuration does not say when a model was made, so `oldest` and `newest` are its order, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderBy {
    Newest,
    Oldest,
    Alphabetical,
}

pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Query(parameters): Query<ListParameters>,
    headers: HeaderMap,
) -> Response {
    if let Err(unauthorized) = authorize(&gateway, &headers) {
        return ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &new_request_id());
    }
    let mut model_endpoints = Vec::new();
    for route in gateway.routes() {
        let status = status(route).await;
        for name in std::iter::once(&route.name).chain(&route.aliases) {
            if parameters.name.as_ref().is_none_or(|wanted| wanted == name) {
                model_endpoints.push(endpoint(name, route, status));
            }
        }
    }
    match parameters.order_by {
        Some(OrderBy::Newest) => model_endpoints.reverse(),
        Some(OrderBy::Alphabetical) => model_endpoints.sort_by(|a, b| a.name.cmp(&b.name)),
        Some(OrderBy::Oldest) | None => {}
    }
    Json(EndpointList { model_endpoints }).into_response()
}

pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(unauthorized) = authorize(&gateway, &headers) {
        return ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &new_request_id());
    }
    match gateway.resolve(&name) {
        Ok(route) => Json(endpoint(&name, &route, status(&route).await)).into_response(),
        Err(_) => {
            // The two spaces are the public servers'.
            let message = format!("Model Endpoint {name}  was not found.");
            ErrorAnswer::model_not_found(message).in_dialect(Dialect::LlmEngine, &new_request_id())
        }
    }
}

async fn status(route: &Route) -> EndpointStatus {
    match route.status().await {
        RouteStatus::Ready => EndpointStatus::Ready,
        RouteStatus::Starting => EndpointStatus::UpdateInProgress,
        RouteStatus::Down => EndpointStatus::UpdateFailed,
    }
}

fn endpoint(name: &str, route: &Route, status: EndpointStatus) -> Endpoint {
    Endpoint {
        id: name.to_owned(),
        name: name.to_owned(),
        model_name: route.name.clone(),
        source: "hugging_face".to_owned(),
        status,
        inference_framework: "vllm".to_owned(),
        inference_framework_image_tag: None,
        num_shards: None,
        quantize: None,
        checkpoint_path: None,
        chat_template_override: None,
        spec: None,
    }
}
