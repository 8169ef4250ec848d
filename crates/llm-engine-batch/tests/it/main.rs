//! What a run does, by a clock that only the tests move, and a server that does as they say.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budgets;
mod crashes;
mod harness;
mod inputs;
mod outages;
mod outputs;
mod rows;
