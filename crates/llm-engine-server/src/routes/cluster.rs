//! What LLM Engine's public servers do and this one does not, because it has no GPU cluster: each route says so, where a client would
//! otherwise take it for a wrong address.

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use llm_engine_gateway::Gateway;

use super::{answered, new_request_id};
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

pub(super) fn add_to(api: &mut Api) {
    let endpoint = "/v1/llm/model-endpoints/{*name}";
    for (operation, what) in [
        (
            Operation::post("/v1/llm/model-endpoints", "Not here: creates a model endpoint"),
            "Creating a model endpoint",
        ),
        (
            Operation::put(endpoint, "Not here: changes a model endpoint"),
            "Changing a model endpoint",
        ),
        (
            Operation::delete(endpoint, "Not here: deletes a model endpoint"),
            "Deleting a model endpoint",
        ),
        (
            Operation::post("/v1/llm/model-endpoints/download", "Not here: downloads a model"),
            "Downloading a model",
        ),
        (
            Operation::post("/v1/llm/fine-tunes", "Not here: tunes a model"),
            "Fine-tuning a model",
        ),
    ] {
        add(api, operation, needs_cluster(what));
    }
    for (path, below, what) in [
        (
            "/v1/model-bundles",
            "/v1/model-bundles/{*rest}",
            "Bundling a model",
        ),
        (
            "/v2/model-bundles",
            "/v2/model-bundles/{*rest}",
            "Bundling a model",
        ),
        ("/v1/triggers", "/v1/triggers/{*rest}", "Triggering a job"),
        (
            "/v1/async-tasks",
            "/v1/async-tasks/{*rest}",
            "Running an async task",
        ),
    ] {
        add(api, Operation::any(path, "Not here"), needs_cluster(what));
        add(api, Operation::any(below, "Not here"), needs_cluster(what));
    }
}

fn add(api: &mut Api, operation: Operation, message: String) {
    let operation = operation.tagged("What this server does not do");
    api.add(operation.keyed(Dialect::LlmEngine, &[501]), refused(message));
}

fn needs_cluster(what: &str) -> String {
    format!("{what} needs a GPU cluster; this server serves the models in its configuration.")
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
