use llm_engine_overload::{Outcome, estimate, simulate_seeds};

use crate::{SEEDS, adaptive, print, row, usual};

fn refused(load: f64, base: f64, spread: f64, seeds: impl IntoIterator<Item = u64>) -> Vec<f64> {
    let mut scenario = usual(adaptive(), load);
    scenario.engine.base_seconds = base;
    scenario.engine.base_spread = spread;
    let part = |outcome: &Outcome| outcome.refused as f64 / outcome.offered as f64;
    simulate_seeds(&scenario, seeds).iter().map(part).collect()
}

#[test]
fn a_healthy_upstream_is_never_limited_below_its_need() {
    for base in [0.1, 0.7, 2.0, 5.0] {
        for spread in [0.0, 0.1] {
            for part in refused(0.6, base, spread, 1..=3) {
                assert!(part < 0.002, "base {base} s, spread {spread}: {part} refused");
            }
        }
    }
}

#[test]
#[ignore = "takes seconds"]
fn table_of_healthy_upstreams() {
    print("| load, base, spread | refused |\n|---|---|");
    for load in [0.6, 0.8] {
        for base in [0.1, 0.7, 2.0, 5.0] {
            for spread in [0.0, 0.1, 0.2] {
                let part = estimate(refused(load, base, spread, SEEDS));
                row(&format!("{load}x, {base} s, {spread}"), part);
            }
        }
    }
}
