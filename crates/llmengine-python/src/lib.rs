//! The native part of the Python package `llmengine`: what is written in Rust, for Python to call. What Python programs see is in
//! `python/llmengine`, and tests are in `tests`.

mod attempts;
mod backoff;
mod budget;
mod call;
mod delivery;
mod engine;
mod error;
mod events;
mod hint;
mod line;
mod module;
mod random;
mod seconds;
mod stop;
mod waiting;
