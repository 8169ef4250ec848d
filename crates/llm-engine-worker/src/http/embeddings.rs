use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Usage;
use serde::Deserialize;
use serde_json::{Value, json};

use super::generate::register;
use super::{Front, json, off_loop, read_body};
use crate::cancel::CancelOnDrop;
use crate::embedding::MAX_TEXT_TOKENS;
use crate::generation::text_prompts;
use crate::refusal::Refusal;

/// The most tokens of one request, over all of its texts: what a small model reads in a few minutes.
const MAX_TOKENS: usize = 65_536;

#[derive(Debug, Deserialize)]
struct EmbeddingRequest {
    model: String,
    input: Value,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<u64>,
}

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    State(front): State<Arc<Front>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let mut registration = register(&front, &headers)?;
    let _cancel = CancelOnDrop(registration.cancel_flag());
    let body = read_body(body).await?;
    let preparing = Arc::clone(&front);
    let (request, texts) = off_loop(move || prepare(&preparing, &body)).await?;
    let embedded = front.embedder.embed(texts, registration.cancel_flag()).await?;
    let usage = Usage::new(u64::try_from(embedded.read).unwrap_or(u64::MAX), 0);
    registration.settle(usage);
    let Some(embeddings) = embedded.embeddings else {
        return Err(Refusal::failed("the request was cancelled"));
    };
    let as_base64 = request.encoding_format.as_deref() == Some("base64");
    let entry = |(index, embedding): (usize, &Vec<f32>)| {
        let embedding = if as_base64 {
            let bytes: Vec<u8> = embedding.iter().flat_map(|value| value.to_le_bytes()).collect();
            Value::from(STANDARD.encode(bytes))
        } else {
            Value::from(embedding.as_slice())
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    };
    Ok(json(&json!({
        "object": "list",
        "data": embeddings.iter().enumerate().map(entry).collect::<Vec<_>>(),
        "model": request.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
    })))
}

fn prepare(front: &Front, body: &[u8]) -> Result<(EmbeddingRequest, Vec<Vec<LlamaToken>>), Refusal> {
    let request: EmbeddingRequest = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid("body", format!("the request body can't be read: {error}")))?;
    front.check_model(&request.model)?;
    if let Some(format) = &request.encoding_format
        && !["float", "base64"].contains(&format.as_str())
    {
        let message = "'encoding_format' must be 'float' or 'base64'";
        return Err(Refusal::invalid("encoding_format", message));
    }
    let dimensions = front.model.dimensions();
    if request
        .dimensions
        .is_some_and(|asked| usize::try_from(asked) != Ok(dimensions))
    {
        let message =
            format!("the embeddings of this model have {dimensions} dimensions, and can't have others");
        return Err(Refusal::invalid("dimensions", message));
    }
    let texts = text_prompts(&front.model, "input", &request.input)?;
    let most = front.model.context_tokens().min(MAX_TEXT_TOKENS);
    if let Some(tokens) = texts.iter().map(Vec::len).find(|&tokens| tokens > most) {
        let message = format!("a text of 'input' has {tokens} tokens; it may have {most}");
        return Err(Refusal::too_long("input", message));
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    if tokens > MAX_TOKENS {
        let message = format!("'input' has {tokens} tokens; it may have {MAX_TOKENS} in all");
        return Err(Refusal::too_long("input", message));
    }
    Ok((request, texts))
}
