//! What becomes of callers when models are full, in virtual time: the admission of production in front of a model of an
//! engine. The engine batches continuously: its steps take longer the more it does, prompts are read in pieces beside what is
//! written, its memory is bounded, and when that is full it puts answers back and reads them again.
//!
//! What is not modelled: prefix caches, and more than one engine.

#![warn(missing_docs)]

mod arrivals;
mod clients;
mod comparison;
mod engine;
mod outcome;
mod random;
mod scenario;
mod simulation;

pub use arrivals::{Arrivals, Asked};
pub use clients::{Again, Backoff, Clients};
pub use comparison::{Estimate, best_fixed, equality, estimate, quantile, simulate_seeds};
pub use engine::{Engine, EngineSetup, Step};
/// Parts of a [`Scenario`].
pub use llm_engine_admission::{AdmissionSetup, Limit};
pub use outcome::{CallerOutcome, Outcome, Second};
pub use scenario::{CallerLoad, Change, Lengths, Scenario};
pub use simulation::simulate;
