//! What becomes of callers when models are full: the admission of production in front of a model of an engine, in virtual
//! time.

mod engine;
mod scenario;
mod simulation;

pub use engine::{Engine, EngineSetup, Step};
pub use scenario::{Backoff, CallerLoad, Change, Clients, Lengths, Scenario};
pub use simulation::{CallerOutcome, Outcome, Second, simulate};
