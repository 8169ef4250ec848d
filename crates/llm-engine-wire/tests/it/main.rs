//! What the messages promise, tested from the outside: against recorded verdicts of the programs whose behaviour they
//! take over, and by properties over anything that may come in from a network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod assembly;
mod assembly_splits;
mod chunks;
mod fuzz;
mod json;
mod object;
mod openai_request;
mod recorded;
mod said;
mod schemas;
mod sse;
mod translate;
mod upstream_body;
mod v1_request;
mod v1_upstream;
mod v2_request;
mod wire_forms;
