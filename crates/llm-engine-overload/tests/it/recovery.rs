use llm_engine_overload::{Change, Limit, Outcome, estimate, simulate_seeds};

use crate::{SEEDS, adaptive, fixed, print, row, usual};

/// Seconds from a moment until the goodput of some seconds is nine tenths of what it should be.
fn until(outcome: &Outcome, from: usize, over: usize, should: f64) -> usize {
    let reached = |second: &usize| outcome.good_tokens_between(*second, second + over) >= 0.9 * should;
    (from..).find(reached).map_or(usize::MAX, |second| second - from)
}

/// The work done per second between two seconds.
fn work(outcome: &Outcome, from: usize, to: usize) -> f64 {
    let served = |second: usize| outcome.seconds[second].served.iter().sum::<u64>() as f64;
    (served(to) - served(from)) / (to - from) as f64
}

/// Seconds from a moment until the work of five seconds is nine tenths of what it should be.
fn until_work(outcome: &Outcome, from: usize, should: f64) -> usize {
    let reached = |second: &usize| work(outcome, *second, second + 5) >= 0.9 * should;
    (from..).find(reached).map_or(usize::MAX, |second| second - from)
}

/// Seconds until all is well after an engine was five times slower for twenty seconds.
fn after_slow(limit: Limit, load: f64, seeds: impl IntoIterator<Item = u64>) -> Vec<usize> {
    let mut scenario = usual(limit, load);
    scenario.clients.retries = 3;
    scenario.lasts = 160.0;
    scenario.changes = vec![(100.0, Change::Slower(5.0)), (120.0, Change::Slower(1.0))];
    simulate_seeds(&scenario, seeds)
        .iter()
        .map(|outcome| until(outcome, 120, 20, outcome.good_tokens_between(40, 100)))
        .collect()
}

/// Half of the capacity is lost for some minutes.
fn halved(seeds: impl IntoIterator<Item = u64>) -> Vec<Outcome> {
    let mut scenario = usual(adaptive(), 1.5);
    scenario.lasts = 600.0;
    scenario.changes = vec![(150.0, Change::Capacity(0.5)), (400.0, Change::Capacity(1.0))];
    simulate_seeds(&scenario, seeds)
}

#[test]
fn after_an_engine_was_five_times_slower_all_is_well_at_once_though_clients_retry() {
    for load in [0.8, 0.9] {
        for (seed, took) in (1..).zip(after_slow(adaptive(), load, 1..=8)) {
            assert!(took <= 2, "load {load}, seed {seed}: {took} s");
        }
    }
}

#[test]
fn a_loss_of_half_the_capacity_takes_two_seconds_to_get_used_to_and_its_return_ten() {
    for outcome in halved(1..=4) {
        let took = until(&outcome, 150, 10, outcome.good_tokens_between(180, 260));
        assert!(took <= 2, "{took} s");
        let took = until_work(&outcome, 400, work(&outcome, 480, 590));
        assert!(took <= 10, "{took} s");
    }
}

/// Answers count when they end, so goodput follows what the engine does by the length of an answer: some rows are of a fixed limit that is
/// right all the time.
#[test]
#[ignore = "takes seconds"]
fn table_of_recovery() {
    print("| seconds until nine tenths | seed by seed |\n|---|---|");
    for load in [0.8, 0.9] {
        print(&format!(
            "| five times slower, {load}x | {:?} |",
            after_slow(adaptive(), load, SEEDS)
        ));
        print(&format!(
            "| the same with a fixed limit of 68 | {:?} |",
            after_slow(fixed(68), load, SEEDS)
        ));
    }
    let outcomes = halved(SEEDS);
    let seconds = |of: &dyn Fn(&Outcome) -> usize| -> Vec<usize> { outcomes.iter().map(of).collect() };
    let less = seconds(&|outcome| until(outcome, 150, 10, outcome.good_tokens_between(250, 400)));
    let more = seconds(&|outcome| until_work(outcome, 400, work(outcome, 480, 590)));
    let good = seconds(&|outcome| until(outcome, 400, 10, outcome.good_tokens_between(480, 600)));
    print(&format!("| half the capacity: goodput | {less:?} |"));
    print(&format!("| all of it again: work | {more:?} |"));
    print(&format!("| all of it again: goodput | {good:?} |"));
    row("its mean", estimate(good.iter().map(|seconds| *seconds as f64)));
    assert!(less.iter().all(|seconds| *seconds <= 2) && more.iter().all(|seconds| *seconds <= 10));
}
