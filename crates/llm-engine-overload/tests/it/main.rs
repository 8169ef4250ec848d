//! What the admission of production does in front of a model of an engine. Each demand has a short test, of few seeds and
//! with some room for chance, and a table over twenty seeds (`make soak`, or `--ignored --nocapture`), which are
//! none of those on which the admission was made. `llm-engine simulate --overload` compares over as many seeds as are asked for.

mod callers;
mod gateways;
mod goodput;
mod healthy;
mod promises;
mod recovery;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use llm_engine_overload::{CallerLoad, Estimate, Limit, Outcome, Scenario, estimate};

/// What the engine can take of the usual requests, a second.
const CAPACITY: f64 = 8.8;
/// Of the tables.
const SEEDS: RangeInclusive<u64> = 301..=320;

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
    estimate(outcomes.iter().map(of)).mean
}

/// One outcome's number as a part of another one's of the same seed.
fn paired(ones: &[Outcome], others: &[Outcome], of: impl Fn(&Outcome) -> f64) -> Estimate {
    estimate(ones.iter().zip(others).map(|(one, other)| of(one) / of(other)))
}

/// A row of a table.
fn row(name: &str, Estimate { mean, within }: Estimate) {
    print(&format!("| {name} | {mean:.3} ± {within:.3} |"));
}

#[expect(clippy::print_stdout, reason = "a table is what its test is for")]
fn print(line: &str) {
    println!("{line}");
}
