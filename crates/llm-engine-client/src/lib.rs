//! The Rust client of LLM Engine: calls that lose nothing.
//!
//! A call is retried until it succeeds, is refused for good, or its attempts or its time are used up: by default as the guide
//! recommends, with random exponential backoff from 1 s to 60 s, six attempts and 300 s in all. What the server says about when
//! to come back goes before.
//!
//! ```no_run
//! use llm_engine_client::{Client, v1::CompletionRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:5000", "root")?;
//! let request = CompletionRequest::new("llama-7b", "Why is the sky blue?", 100, 0.2);
//! println!("{}", client.complete(&request).await?.output.text);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: everything starts here. [`blocking::Client`] is the same for code without async.
//! - [`v1`] and [`openai`]: the messages of LLM Engine's own dialect and of OpenAI's.
//! - [`Call`]: any other request to the server, with the same care; its result is an [`Answer`] or an [`EventStream`].
//! - [`batch`]: many rows, each answered exactly once, also over crashes.
//! - [`Retry`], [`Backoff`], [`Stop`]: when another attempt is made.
//! - [`Error`]: what went wrong in the end, whose fault it was, and every attempt that was made.
//!
//! What happens on the way:
//!
//! - Every `POST` has an `Idempotency-Key`, the same on each attempt: a server that has the answer already does not generate, or
//!   charge, it again. So also a broken connection is safe to try again.
//! - Calls of one API key to one model of one server stand in one line, whatever [`Client`] they come from: once one is told to
//!   come back later, the others wait as well, and then leave one by one at the pace that the server keeps.
//! - In an outage at most a fifth more is sent than without retries.
//! - A call that is dropped before its end is cancelled at the server, in the background.
//! - A stream is tried again until its first text has come; from then on it ends with an error if it breaks off.
//!
//! It needs a tokio runtime ([`blocking`] brings one). It honours `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.

#![warn(missing_docs)]

mod answer;
mod attempt;
pub mod batch;
pub mod blocking;
mod builder;
mod call;
mod cancel;
mod client;
mod error;
mod event;
mod event_stream;
mod failed;
mod json;
mod line;
mod lines;
pub mod openai;
mod run;
mod transport;
mod typed_stream;
pub mod v1;

pub use answer::Answer;
pub use builder::{BuildError, Builder};
pub use call::{Call, OnWait, Waiting};
pub use client::Client;
pub use error::{Error, ErrorKind, Fault};
pub use event_stream::EventStream;
pub use lines::Lines;
pub use llm_engine_retry::{Attempt, Backoff, Jitter, Progress, Reason, Retry, Stop};
pub use typed_stream::TypedStream;
