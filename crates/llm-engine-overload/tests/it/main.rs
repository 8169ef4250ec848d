//! What the admission of production does in front of a model of an engine. These are the figures
//! of today over a few seeds, with some room for chance: several are below the aim, which ARCHITECTURE.md names, and none is
//! a proof of it. `llm-engine simulate --overload` compares over as many seeds as are asked for.

mod callers;
mod goodput;
mod promises;
mod recovery;

use std::num::NonZeroU32;

use llm_engine_overload::{CallerLoad, Limit, Outcome, Scenario};

/// What the engine can take of the usual requests, a second.
const CAPACITY: f64 = 8.8;

fn adaptive() -> Limit {
    Limit::Adaptive {
        most: NonZeroU32::new(1_000).expect("above 0"),
    }
}

fn fixed(limit: u32) -> Limit {
    Limit::Fixed(NonZeroU32::new(limit).expect("above 0"))
}

/// Two callers that offer so many times the capacity.
fn usual(limit: Limit, load: f64) -> Scenario {
    Scenario::new(limit, vec![CallerLoad::usual(CAPACITY * load / 2.0); 2])
}

fn mean(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    llm_engine_overload::estimate(outcomes.iter().map(of)).mean
}
