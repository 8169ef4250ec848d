//! The models as LLM Engine's own API lists them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{Gateway, Route, RouteStatus};
use llm_engine_wire::v1::{Endpoint, EndpointList, EndpointStatus};
use llm_engine_wire::validation::{Loc, Problem};
use serde_json::json;

use super::{Named, new_request_id, parameter};
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

/// The configuration does not say when a model was made, so `oldest` and `newest` are its order, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderBy {
    Newest,
    Oldest,
    Alphabetical,
}

impl OrderBy {
    fn read(word: &str) -> Result<Self, Vec<Problem>> {
        match word {
            "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            "alphabetical" => Ok(Self::Alphabetical),
            _ => {
                let expected = "'newest', 'oldest' or 'alphabetical'";
                Err(vec![Problem {
                    kind: "enum",
                    loc: vec![Loc::Name("query"), Loc::Name("order_by")],
                    msg: format!("Input should be {expected}"),
                    input: word.into(),
                    ctx: Some(json!({ "expected": expected })),
                }])
            }
        }
    }
}

pub(super) fn add_to(api: &mut Api) {
    let text = json!({ "type": "string" });
    let order = json!({ "enum": ["newest", "oldest", "alphabetical"] });
    let list = Operation::get("/v1/llm/model-endpoints", "The models")
        .query("name", false, &text, "Only the one of this name")
        .query("order_by", false, &order, "In which order");
    let list = list.json::<EndpointList>().keyed(Dialect::LlmEngine, &[422]);
    api.add(list, self::list);
    let one = Operation::get("/v1/llm/model-endpoints/{*name}", "A model").json::<Endpoint>();
    api.add(one.keyed(Dialect::LlmEngine, &[404]), get);
}

async fn list(State(gateway): State<Arc<Gateway>>, uri: Uri, headers: HeaderMap) -> Response {
    if let Err(unauthorized) = authorize(&gateway, &headers) {
        return ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &new_request_id());
    }
    let order_by = match parameter(&uri, "order_by")
        .map(|word| OrderBy::read(&word))
        .transpose()
    {
        Ok(order_by) => order_by,
        Err(problems) => {
            let answer = ErrorAnswer::unprocessable(problems);
            return answer.in_dialect(Dialect::LlmEngine, &new_request_id());
        }
    };
    let wanted = parameter(&uri, "name");
    let mut model_endpoints = Vec::new();
    for route in gateway.routes() {
        let status = status(route).await;
        for name in route.names() {
            if wanted.as_ref().is_none_or(|wanted| wanted == name) {
                model_endpoints.push(endpoint(name, route, status));
            }
        }
    }
    match order_by {
        Some(OrderBy::Newest) => model_endpoints.reverse(),
        Some(OrderBy::Alphabetical) => model_endpoints.sort_by(|a, b| a.name.cmp(&b.name)),
        Some(OrderBy::Oldest) | None => {}
    }
    Json(EndpointList { model_endpoints }).into_response()
}

/// The name may have slashes in it, but none at its end: there it is a slash too many.
async fn get(State(gateway): State<Arc<Gateway>>, Named(name): Named, headers: HeaderMap) -> Response {
    if let Err(unauthorized) = authorize(&gateway, &headers) {
        return ErrorAnswer::from(unauthorized).in_dialect(Dialect::LlmEngine, &new_request_id());
    }
    let name = name.trim_end_matches('/');
    match gateway.resolve(name) {
        Ok(route) => Json(endpoint(name, route, status(route).await)).into_response(),
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
        model_name: route.name.to_string(),
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
