use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::Fingerprint;

use super::Retry;
use crate::{CallerSetup, PolicySetup, PriceSetup};

/// What a simulation is made from.
#[derive(Debug)]
pub struct SimulationSetup {
    /// The models that are known.
    pub models: Vec<SimulatedModel>,
    /// The callers that are known.
    pub callers: Vec<CallerSetup>,
    /// The limits.
    pub policies: Vec<PolicySetup>,
    /// The time on the wall when it begins, by which calendar windows begin.
    pub start: Timestamp,
    /// Of all that is random: the same seed and the same requests give the same report.
    pub seed: u64,
}

/// What a simulation has to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedModel {
    /// Its name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// What it costs.
    pub price: PriceSetup,
}

/// One request, and what would become of it if it were admitted.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedRequest<'a> {
    /// Who sends it. A caller that is not known is a team of its own.
    pub caller: &'a str,
    /// The model, by any of its names. One that is not known costs nothing.
    pub model: &'a str,
    /// One of [`ROUTES`](crate::ROUTES).
    pub route: &'a str,
    /// What it reserves.
    pub asked: Tokens,
    /// What it really uses. `None`: no model works on it, although the policies admit it.
    pub used: Option<Tokens>,
    /// How long it runs once it is admitted.
    pub lasts: Duration,
    /// By what it is recognised when it comes again.
    pub fingerprint: Fingerprint,
    /// What its client does when it is refused.
    pub retry: Retry,
    /// How often the client tries at most.
    pub attempts: u32,
}

/// An amount of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}
