//! The client over real sockets: against servers that do what the tests tell them, and against the real one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod against_server;
mod batches;
mod blocking;
mod calls;
mod cancelling;
mod cutting;
mod deadlines;
mod harness;
mod lines;
mod outage;
mod proxies;
mod retrying;
mod streams;
