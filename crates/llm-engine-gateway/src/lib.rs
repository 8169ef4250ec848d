//! Carries one request from parsed message to settled usage.
//!
//! [`Gateway::complete`] is the straight line; each of its steps has a file of its own:
//!
//! | step | file | says no with |
//! |---|---|---|
//! | authenticate | `authenticate.rs` | [`Unauthenticated`] |
//! | resolve | `resolve.rs` | [`UnknownModel`] |
//! | price | `price.rs` | |
//! | admit | `admit.rs` | [`Refusal`] |
//! | wait | `wait.rs` | [`Refusal`] |
//! | attempt | `attempt.rs` | [`Failure`] |
//! | stream | `stream.rs` | [`Failure`] |
//! | settle | `settle.rs` | |
//! | report | `report.rs` | |
//!
//! Behind them stand the deployments (`deployment.rs`) and the model workers that are started and watched here
//! (`supervise.rs`). The crate knows nothing of the HTTP server in front of it.

mod admit;
mod attempt;
mod authenticate;
mod complete;
mod deployment;
mod failure;
mod gateway;
mod price;
mod refusal;
mod report;
mod resolve;
mod settle;
mod setup;
mod stream;
mod supervise;
mod wait;

pub use authenticate::{ApiKeyDigest, Caller, Unauthenticated};
pub use complete::{AnswerBody, CompleteError};
pub use failure::{Failure, Fault};
pub use gateway::Gateway;
pub use llm_engine_limit::{Counted, Level, Match, Per, Policy, Quota, QuotaError, Unit};
pub use refusal::{Refusal, RefusalCode};
pub use resolve::{Route, RouteStatus, UnknownModel};
pub use setup::{CallerSetup, DeploymentSetup, ModelSetup, RemoteSetup, Setup, SetupError, WorkerSetup};
pub use stream::{AnswerStream, Event};
