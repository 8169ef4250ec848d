use llm_engine_overload::{Change, Outcome, simulate_seeds};

use crate::{adaptive, usual};

/// Seconds from a moment until the goodput of some seconds is nine tenths of what it should be.
fn until(outcome: &Outcome, from: usize, over: usize, should: f64) -> usize {
    let reached = |second: &usize| outcome.good_tokens_between(*second, second + over) >= 0.9 * should;
    (from..).find(reached).map_or(usize::MAX, |second| second - from)
}

#[test]
fn after_an_engine_was_five_times_slower_all_is_well_at_once_though_clients_retry() {
    for load in [0.8, 0.9] {
        let mut scenario = usual(adaptive(), load);
        scenario.clients.retries = 3;
        scenario.lasts = 160.0;
        scenario.changes = vec![(100.0, Change::Slower(5.0)), (120.0, Change::Slower(1.0))];
        for (seed, outcome) in (1..).zip(simulate_seeds(&scenario, 1..=8)) {
            let before = outcome.good_tokens_between(40, 100);
            let took = until(&outcome, 120, 20, before);
            assert!(took <= 2, "load {load}, seed {seed}: {took} s");
        }
    }
}

#[test]
fn a_loss_of_half_the_capacity_takes_two_seconds_to_get_used_to() {
    let mut scenario = usual(adaptive(), 1.5);
    scenario.lasts = 260.0;
    scenario.changes = vec![(150.0, Change::Capacity(0.5))];
    for outcome in simulate_seeds(&scenario, 1..=4) {
        let after = outcome.good_tokens_between(180, 260);
        let took = until(&outcome, 150, 10, after);
        assert!(took <= 2, "{took} s");
    }
}
