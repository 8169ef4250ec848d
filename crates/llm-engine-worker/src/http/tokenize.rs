use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use llm_engine_wire::worker::{TokenizeRequest, TokenizeResponse};

use super::{Front, json, off_loop, read_body};
use crate::generation::{chat_prompt, text_prompt};
use crate::refusal::Refusal;

/// `POST /tokenize`: exactly the tokens that a request with this prompt or these messages would have.
pub(super) async fn tokenize(State(front): State<Arc<Front>>, body: Body) -> Result<Response<Body>, Refusal> {
    let body = read_body(body).await?;
    let answer = off_loop(move || {
        let request: TokenizeRequest = serde_json::from_slice(&body)
            .map_err(|error| Refusal::invalid("body", format!("the request body can't be read: {error}")))?;
        if !request.model.is_empty() {
            front.check_model(&request.model)?;
        }
        let tokens = match (&request.prompt, &request.messages) {
            (Some(prompt), None) => text_prompt(&front.model, "prompt", prompt)?,
            (None, Some(messages)) => chat_prompt(&front.model, Some(messages))?,
            _ => return Err(Refusal::invalid("prompt", "give either a 'prompt' or 'messages'")),
        };
        Ok(TokenizeResponse {
            count: u64::try_from(tokens.len()).unwrap_or(u64::MAX),
            max_model_len: u64::try_from(front.model.context_tokens()).unwrap_or(u64::MAX),
            // Negative ids have been refused.
            tokens: tokens
                .iter()
                .filter_map(|token| u32::try_from(token.0).ok())
                .collect(),
        })
    });
    Ok(json(&answer.await?))
}
