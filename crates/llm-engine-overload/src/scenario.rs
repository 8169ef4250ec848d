use std::time::Duration;

use llm_engine_admission::{AdmissionSetup, Limit};

use crate::{Clients, EngineSetup};

/// Who asks for what, of which engine, through which admission.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The models.
    pub engine: EngineSetup,
    /// The admission of each gateway.
    pub admission: AdmissionSetup,
    /// The share of the requests that each gateway gets.
    pub gateways: Vec<f64>,
    /// Who sends requests.
    pub callers: Vec<CallerLoad>,
    /// What they do when they get no answer.
    pub clients: Clients,
    /// What happens to the engine, in the order of time: seconds since the start.
    pub changes: Vec<(f64, Change)>,
    /// Seconds.
    pub lasts: f64,
    /// Seconds at the start that are not counted.
    pub warm_up: f64,
    /// Of all that is random.
    pub seed: u64,
}

/// One caller's requests: they come at random, independent of each other.
#[derive(Debug, Clone, Copy)]
pub struct CallerLoad {
    /// Per second.
    pub rate: f64,
    /// Tokens of prompts.
    pub input: Lengths,
    /// Tokens of answers.
    pub output: Lengths,
}

/// Lengths whose logarithm is normally distributed.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    /// The mean, but for what the bounds cut off.
    pub mean: f64,
    /// The standard deviation of the logarithm.
    pub spread: f64,
    /// The shortest.
    pub least: f64,
    /// The longest.
    pub most: f64,
}

/// What happens to an engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Every step takes so many times as long as in the beginning.
    Slower(f64),
    /// It has this part of the memory of the beginning, and works as much slower.
    Capacity(f64),
    /// Seconds that requests take before the engine has them.
    Base(f64),
}

impl CallerLoad {
    /// Prompts of 500 tokens and answers of 250, on average.
    #[must_use]
    pub fn usual(rate: f64) -> Self {
        let lengths = |mean, least, most| Lengths {
            mean,
            spread: 1.0,
            least,
            most,
        };
        Self {
            rate,
            input: lengths(500.0, 16.0, 4_000.0),
            output: lengths(250.0, 4.0, 2_000.0),
        }
    }

    /// Prompts of 4,000 tokens, on average, some of 32,000.
    #[must_use]
    pub fn long(rate: f64) -> Self {
        let input = Lengths {
            mean: 4_000.0,
            spread: 1.3,
            least: 16.0,
            most: 32_000.0,
        };
        Self {
            input,
            ..Self::usual(rate)
        }
    }
}

impl Scenario {
    /// One gateway with the usual waits.
    #[must_use]
    pub fn new(limit: Limit, callers: Vec<CallerLoad>) -> Self {
        Self {
            engine: EngineSetup::default(),
            admission: AdmissionSetup {
                limit,
                wait: Duration::from_secs(2),
                booked_wait: Duration::from_secs(3),
                queue: 10_000,
            },
            gateways: vec![1.0],
            callers,
            clients: Clients::default(),
            changes: Vec::new(),
            lasts: 240.0,
            warm_up: 60.0,
            seed: 1,
        }
    }
}
