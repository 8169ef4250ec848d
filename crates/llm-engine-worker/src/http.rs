//! The HTTP side: routes, and what they share.

mod answer;
mod cancel;
mod embeddings;
mod generate;
mod logprobs;
mod stream;
mod tokenize;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use llm_engine_wire::openai::{Model as ModelEntry, ModelList};
use serde::Serialize;

use crate::counters::Counters;
use crate::embedding::Embedder;
use crate::engine::Intake;
use crate::guided::Compiler;
use crate::model::Model;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::registry::Registry;

/// The largest request body: far more text than any context of this runner holds.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct Front {
    model_name: String,
    default_max_tokens: NonZeroU32,
    /// Tokens that the whole cache has room for.
    capacity_tokens: u64,
    model: Arc<Model>,
    compiler: Arc<Compiler>,
    embedder: Embedder,
    intake: Intake,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    /// When the worker started, in seconds of Unix time: part of the answers' ids, with `answers`.
    started: u64,
    answers: AtomicU64,
}

impl Front {
    pub(crate) fn new(
        options: &Options,
        model: Arc<Model>,
        intake: Intake,
        counters: Arc<Counters>,
        registry: Arc<Registry>,
    ) -> Self {
        let context_tokens = u64::try_from(model.context_tokens()).unwrap_or(u64::MAX);
        Self {
            model_name: options.model_name.clone(),
            default_max_tokens: options.default_max_tokens,
            capacity_tokens: context_tokens * u64::from(options.parallel.get()),
            compiler: Compiler::new(Arc::clone(&model)),
            embedder: Embedder::new(Arc::clone(&model), Arc::clone(&counters), options.threads),
            model,
            intake,
            counters,
            registry,
            started: unix_seconds(),
            answers: AtomicU64::new(0),
        }
    }

    fn check_model(&self, asked: &str) -> Result<(), Refusal> {
        if asked == self.model_name {
            Ok(())
        } else {
            Err(Refusal::unknown_model(asked, &self.model_name))
        }
    }
}

/// The routes.
pub(crate) fn router(front: Front) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completion))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/cancel", post(cancel::cancel))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async { Refusal::unknown_route() })
        .with_state(Arc::new(front))
}

type Shared = State<Arc<Front>>;

async fn models(State(front): Shared) -> Response<Body> {
    let model = ModelEntry {
        id: front.model_name.clone(),
        object: "model".to_owned(),
        created: front.started,
        owned_by: "llm-engine".to_owned(),
    };
    json(&ModelList {
        object: "list".to_owned(),
        data: vec![model],
    })
}

async fn health(State(front): Shared) -> StatusCode {
    if front.counters.is_alive() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn metrics(State(front): Shared) -> Response<Body> {
    let text = front
        .counters
        .exposition(&front.model_name, front.capacity_tokens);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Reads a body up to [`MAX_BODY_BYTES`].
async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| Refusal::body_too_large(MAX_BODY_BYTES))
}

/// Does work that may take milliseconds, such as tokenizing, where it can't hold up the streams.
async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Refusal::failed("the request could not be read")))
}

fn json(body: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(body) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => Refusal::failed("the answer could not be written").into_response(),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
