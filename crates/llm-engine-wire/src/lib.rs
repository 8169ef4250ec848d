//! The messages that cross the network, and pure translation between dialects.
//!
//! - [`openai`]: OpenAI's chat completions and completions, as callers send them and as deployments answer them
//! - [`v1`]: LLM Engine's own first API, checked the way its public servers check it; and as deployments speak it
//! - [`v2`]: LLM Engine's second API, which is OpenAI's with the checks of the first
//! - [`batch_completions`]: LLM Engine's batches
//! - [`file`](mod@file): files on the server, for the clients of both dialects
//! - [`translate`]: from `v1` to OpenAI's dialect and back
//! - [`validation`]: the 422 answer: one problem per field, in FastAPI's form
//! - [`object`]: JSON objects that are passed on as they came
//! - [`said`]: what a server says of a failure, in any form
//! - [`sse`]: server-sent events, written and read incrementally
//! - [`worker`]: what the model worker offers beside OpenAI's dialect
//!
//! Nothing here does I/O, reads a clock or knows a quota.

pub mod batch_completions;
pub mod file;
pub mod object;
pub mod openai;
pub mod said;
pub mod sse;
pub mod translate;
pub mod v1;
pub mod v2;
pub mod validation;
pub mod worker;
