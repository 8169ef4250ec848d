//! A GGUF model in a process of its own (llama.cpp), speaking OpenAI's dialect on a local socket.
//!
//! [`run`] loads the model, binds the socket and answers until it is told to stop. It is a process of its own because
//! llama.cpp's assertions abort the process that they are in. What it offers over HTTP:
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/chat/completions`, `POST /v1/completions` | answers, whole or as a stream |
//! | `POST /v1/embeddings` | the mean of the model's last hidden states |
//! | `POST /tokenize` | exactly how many tokens a prompt has |
//! | `POST /cancel` | ends a request, answers with what it has used |
//! | `GET /v1/models`, `GET /health`, `GET /metrics` | what is served, whether it lives, vLLM's metric names |
//!
//! One thread owns the model's context and decodes for all running requests at once; the HTTP side runs on another
//! thread and only tokenizes. The crate knows nothing of callers, quotas or API keys: the socket belongs to the gateway.

mod cancel;
mod counters;
mod embedding;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
mod generation;
mod guided;
mod http;
mod messages;
mod model;
mod options;
mod refusal;
mod registry;
mod sampler;
mod text;
mod unsupported;
mod worker;

pub use error::Error;
pub use options::Options;
pub use worker::{LLAMA_LOG_TARGET, Worker, run};
