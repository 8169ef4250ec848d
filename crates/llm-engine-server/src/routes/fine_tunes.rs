//! Fine-tuning jobs, of which there are none.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Gateway;
use schemars::JsonSchema;
use serde::Serialize;

use super::{answered, new_request_id};
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};

/// The jobs.
#[derive(Debug, Serialize, JsonSchema)]
struct FineTunes {
    /// There are none.
    jobs: [(); 0],
}

pub(super) fn add_to(api: &mut Api) {
    let list = Operation::get("/v1/llm/fine-tunes", "The jobs that tune a model").json::<FineTunes>();
    api.add(list.keyed(Dialect::LlmEngine, &[]), self::list);
    for operation in [
        Operation::get("/v1/llm/fine-tunes/{id}", "A job"),
        Operation::get("/v1/llm/fine-tunes/{id}/events", "What became of a job"),
        Operation::put("/v1/llm/fine-tunes/{id}/cancel", "Cancels a job"),
    ] {
        api.add(operation.keyed(Dialect::LlmEngine, &[404]), unknown);
    }
}

async fn list(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = authorize(&gateway, &headers).map(|_| Json(FineTunes { jobs: [] }).into_response());
    answered(answer, Dialect::LlmEngine, &request_id)
}

/// Whatever is asked about a job.
async fn unknown(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = match authorize(&gateway, &headers) {
        Ok(_) => ErrorAnswer::nothing_there(
            "fine_tune_not_found",
            "The specified fine-tune could not be found.",
        ),
        Err(unauthorized) => unauthorized.into(),
    };
    answered(Err(answer), Dialect::LlmEngine, &request_id)
}
