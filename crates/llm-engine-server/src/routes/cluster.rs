//! What LLM Engine's public servers do and this one does not, because it has no GPU cluster or because nobody has built it: each
//! route says so, where a client would otherwise take it for a wrong address.

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, get, post, put};
use llm_engine_gateway::Gateway;

use super::{answered, new_request_id};
use crate::App;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route(
            "/v1/llm/model-endpoints",
            post(needs_cluster("Creating a model endpoint")),
        )
        .route(
            "/v1/llm/model-endpoints/{*name}",
            put(needs_cluster("Changing a model endpoint"))
                .delete(needs_cluster("Deleting a model endpoint")),
        )
        .route(
            "/v1/llm/model-endpoints/download",
            post(needs_cluster("Downloading a model")),
        )
        .route("/v1/llm/fine-tunes", post(needs_cluster("Fine-tuning a model")))
        .merge(all_below("/v1/model-bundles", "Bundling a model"))
        .merge(all_below("/v2/model-bundles", "Bundling a model"))
        .merge(all_below("/v1/triggers", "Triggering a job"))
        .merge(all_below("/v1/async-tasks", "Running an async task"))
        .merge(batches())
}

fn batches() -> Router<App> {
    let batch = || refused("This server completes no batches yet; send its prompts one by one.".to_owned());
    let file = || refused("This server keeps no files yet.".to_owned());
    Router::new()
        .route("/v1/llm/batch-completions", post(batch()))
        .route("/v2/batch-completions", post(batch()))
        .route("/v2/batch-completions/{id}", get(batch()))
        .route("/v2/batch-completions/{id}/actions/cancel", post(batch()))
        .route("/v1/batches", get(batch()).post(batch()))
        .route("/v1/batches/{id}", get(batch()))
        .route("/v1/batches/{id}/cancel", post(batch()))
        .route("/v1/files", get(file()).post(file()))
        .route("/v1/files/{id}", get(file()).delete(file()))
        .route("/v1/files/{id}/content", get(file()))
}

/// The path and every one that begins with it, by any method.
fn all_below(path: &str, what: &'static str) -> Router<App> {
    Router::new()
        .route(path, any(needs_cluster(what)))
        .route(&format!("{path}/{{*rest}}"), any(needs_cluster(what)))
}

fn needs_cluster(
    what: &str,
) -> impl Fn(State<Arc<Gateway>>, HeaderMap) -> Ready<Response> + Clone + Send + Sync + 'static {
    refused(format!(
        "{what} needs a GPU cluster; this server serves the models in its configuration."
    ))
}

/// A route that only says this, to those who have a key.
fn refused(
    message: String,
) -> impl Fn(State<Arc<Gateway>>, HeaderMap) -> Ready<Response> + Clone + Send + Sync + 'static {
    move |State(gateway), headers| {
        let answer = match authorize(&gateway, &headers) {
            Ok(_) => ErrorAnswer::not_implemented(message.clone()),
            Err(unauthorized) => unauthorized.into(),
        };
        let request_id = new_request_id();
        ready(answered(Err(answer), Dialect::LlmEngine, &request_id))
    }
}
