//! What LLM Engine's public servers do with a GPU cluster. This one says that it has none.

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, post, put};
use llm_engine_gateway::Gateway;

use super::{answered, new_request_id};
use crate::App;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route(
            "/v1/llm/model-endpoints",
            post(refused("Creating a model endpoint")),
        )
        .route(
            "/v1/llm/model-endpoints/{name}",
            put(refused("Changing a model endpoint")).delete(refused("Deleting a model endpoint")),
        )
        .route(
            "/v1/llm/model-endpoints/download",
            post(refused("Downloading a model")),
        )
        .route("/v1/llm/fine-tunes", post(refused("Fine-tuning a model")))
        .merge(all_below("/v1/model-bundles", "Bundling a model"))
        .merge(all_below("/v2/model-bundles", "Bundling a model"))
        .merge(all_below("/v1/triggers", "Triggering a job"))
        .merge(all_below("/v1/async-tasks", "Running an async task"))
}

/// The path and every one that begins with it, by any method.
fn all_below(path: &str, what: &'static str) -> Router<App> {
    Router::new()
        .route(path, any(refused(what)))
        .route(&format!("{path}/{{*rest}}"), any(refused(what)))
}

/// A route that only says that it needs a cluster, to those who have a key.
fn refused(
    what: &'static str,
) -> impl Fn(State<Arc<Gateway>>, HeaderMap) -> Ready<Response> + Clone + Send + Sync + 'static {
    move |State(gateway), headers| {
        let answer = match authorize(&gateway, &headers) {
            Ok(_) => ErrorAnswer::not_implemented(format!(
                "{what} needs a GPU cluster; this server serves the models in its configuration."
            )),
            Err(unauthorized) => unauthorized.into(),
        };
        let request_id = new_request_id();
        ready(answered(Err(answer), Dialect::LlmEngine, &request_id))
    }
}
