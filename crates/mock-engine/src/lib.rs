//! For tests: a model server without a model, and callers that ask more of it than it can give. Both are those of
//! `llm-engine-overload`, over HTTP and by the real clock, so that what a server in front of the engine makes of a scenario can be
//! compared with what was simulated.
//!
//! A [`MockEngine`] is a real HTTP server on a loopback port that the system chose. Its answers take as long as those of an engine
//! that batches: longer the more are written at a time. A [`Load`] has the callers of a scenario send their requests.

#![warn(missing_docs)]

mod batch;
mod call;
mod load;
mod mock_engine;
mod prompt;
mod running;
mod server;
mod tally;

/// Parts of a scenario.
pub use llm_engine_overload::{Change, EngineSetup, Scenario};
pub use load::Load;
pub use mock_engine::{Abort, FirstToken, MockEngine, Seen};
pub use tally::Measured;
