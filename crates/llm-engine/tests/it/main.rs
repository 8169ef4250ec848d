//! The executable as its users meet it: the real binary, a real model, real sockets, the real clock.
//!
//! The tests that run a model need the feature `worker`, and the path of a model file in `LLM_ENGINE_TEST_GGUF`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arguments;
mod budgets;
mod check;
#[cfg_attr(
    not(feature = "worker"),
    expect(dead_code, reason = "the tests that run a model need all of it")
)]
mod client;
mod crowd;
mod explain;
mod overload;
mod program;
mod reload;
#[cfg_attr(
    not(feature = "worker"),
    expect(dead_code, reason = "the tests that run a model need all of it")
)]
mod server;
mod simulate;
mod traces;
mod until;
mod upstream;
mod waits;

#[cfg(feature = "worker")]
mod answers;
#[cfg(feature = "worker")]
mod complete;
#[cfg(feature = "worker")]
mod crash;
#[cfg(feature = "worker")]
mod ending;
#[cfg(feature = "worker")]
mod hang_up;
#[cfg(feature = "worker")]
mod hostile;
#[cfg(feature = "worker")]
mod limits;
#[cfg(feature = "worker")]
mod logs;
#[cfg(feature = "worker")]
mod many_callers;
#[cfg(feature = "worker")]
mod memory;
#[cfg(feature = "worker")]
mod saturation;
#[cfg(feature = "worker")]
mod starting;
#[cfg(feature = "worker")]
mod worker;
