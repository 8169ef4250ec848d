//! The engine as a gateway meets it, and the callers in front of it, by the real clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod callers;
