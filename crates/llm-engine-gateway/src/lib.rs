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
//! | choose | `choose.rs` | [`Refusal`], [`Failure`] |
//! | attempt | `attempt.rs` | [`Failure`] |
//! | stream | `stream.rs` | [`Failure`] |
//! | settle | `settle.rs` | |
//! | report | `report.rs` | |
//!
//! Behind them stand the deployments (`deployment.rs`; what is reached over HTTP, `remote.rs`) and the model workers that are started and watched here
//! (`supervise.rs`). The crate knows nothing of the HTTP server in front of it.

mod admit;
mod answer_error;
mod arrival;
mod attempt;
mod authenticate;
mod calendars;
mod choose;
mod clients;
mod complete;
mod connect;
mod cooldown;
mod deployment;
mod explain;
mod failure;
mod gateway;
mod health;
mod hold;
mod housekeeping;
mod journal;
mod learn;
mod load;
mod metrics;
mod names;
mod policies;
mod price;
mod refusal;
mod remote;
mod report;
mod resolve;
mod settle;
mod setup;
mod simulate;
mod stream;
mod supervise;
mod telemetry;
mod trace;
mod trace_headers;
mod wait;

pub use arrival::{Arrival, REQUEST_TIMEOUT, ROUTES};
pub use authenticate::{ApiKeyDigest, Caller, Unauthenticated};
pub use choose::MOST_DEPLOYMENTS;
pub use complete::{Admitted, AnswerBody, CompleteError};
pub use explain::{Explanation, in_units, unit_name};
pub use failure::{Failure, Fault};
pub use gateway::Gateway;
pub use journal::JournalError;
pub use llm_engine_limit::{
    Budget, Counted, Fingerprint, GRACE, Level, Limiter, Mode, Name, Per, Period, Quota, QuotaError, Unit,
};
pub use refusal::{Refusal, RefusalCode, milliseconds_up};
pub use resolve::{Route, RouteStatus, UnknownModel};
pub use setup::{
    BudgetSetup, CallerSetup, DeploymentSetup, Dialect, MatchSetup, ModelSetup, PolicySetup, PriceSetup,
    ProxySetup, RemoteSetup, Setup, SetupError, Timeouts, WorkerSetup,
};
pub use simulate::{
    BookingCounts, CallerReport, Moment, PolicyReport, QuotaUse, Retry, SimulatedModel, SimulatedRequest,
    Simulation, SimulationReport, SimulationSetup, Tally, Timeline, Tokens, Waits,
};
pub use stream::{AnswerStream, Event};
pub use telemetry::TelemetrySetup;
pub use trace_headers::TraceHeaders;
pub use wait::Priority;

/// The most policies that there can be.
pub const MOST_POLICIES: usize = Limiter::MOST_POLICIES;
