//! The worker over a real Unix socket, with the real model. `LLM_ENGINE_TEST_GGUF` says where the model file is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod cancelling;
mod choices;
mod client;
mod embeddings;
mod guided;
mod refusals;
mod running;
mod sampling;
mod service;
