//! The server over real sockets, in front of an upstream that does what the tests tell it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bookings;
mod budgets;
mod cluster;
mod configuration;
mod conformance;
mod connections;
mod cut_connections;
mod document;
mod draining;
mod embeddings;
mod explain;
mod fuzz;
mod golden;
mod hang_up;
mod harness;
mod headers;
mod hold;
mod hostile;
mod idempotency;
mod idempotency_ends;
mod levels;
mod limits;
mod mistakes;
mod observing;
mod openai;
mod rate_limits_page;
mod raw;
mod reloading;
mod schema;
mod tls;
mod traces;
mod trust;
mod v1;
mod v2;
mod waiting;
