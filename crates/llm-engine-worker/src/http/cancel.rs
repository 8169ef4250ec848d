use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use llm_engine_wire::openai::Usage;
use llm_engine_wire::worker::{CancelRequest, CancelResponse};

use super::{Front, json, read_body};
use crate::refusal::Refusal;
use crate::registry::Found;

/// `POST /cancel`: answers when the model no longer works on the request, with all that it has used.
pub(super) async fn cancel(State(front): State<Arc<Front>>, body: Body) -> Result<Response<Body>, Refusal> {
    let body = read_body(body).await?;
    let request: CancelRequest = serde_json::from_slice(&body)
        .map_err(|error| Refusal::invalid("body", format!("the request body can't be read: {error}")))?;
    let id = &request.request_id;
    let usage = match front
        .registry
        .cancel(id)
        .ok_or_else(|| Refusal::unknown_request(id))?
    {
        Found::Finished(usage) => usage,
        Found::Ending(mut usage) => match usage.wait_for(Option::is_some).await {
            Ok(usage) => usage.unwrap_or_default(),
            // Refused before the model saw it.
            Err(_) if front.counters.is_alive() => Usage::default(),
            Err(_) => return Err(Refusal::failed("the model is not running")),
        },
    };
    Ok(json(&CancelResponse { usage }))
}
