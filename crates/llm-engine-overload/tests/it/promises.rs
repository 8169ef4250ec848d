use llm_engine_overload::{Outcome, estimate, simulate_seeds};

use crate::{SEEDS, adaptive, mean, paired, print, row, usual};

fn with(obedient: f64, seeds: impl IntoIterator<Item = u64>) -> Vec<Outcome> {
    let mut scenario = usual(adaptive(), 2.0);
    scenario.lasts = 360.0;
    scenario.warm_up = 120.0;
    scenario.clients.retries = 3;
    scenario.clients.obedient = obedient;
    simulate_seeds(&scenario, seeds)
}

fn kept(outcome: &Outcome) -> f64 {
    outcome.kept as f64 / outcome.claimed as f64
}

#[test]
fn who_comes_at_its_time_is_let_in_and_nothing_is_lost_by_it() {
    let nobody = with(0.0, 1..=3);
    for obedient in [1.0, 0.5, 0.1] {
        let outcomes = with(obedient, 1..=3);
        let part = mean(&outcomes, kept);
        assert!(part >= 0.95, "{obedient}: {part}");
        let goodput = paired(&outcomes, &nobody, Outcome::goodput).mean;
        assert!(goodput >= 0.95, "{obedient}: {goodput}");
    }
}

#[test]
#[ignore = "takes seconds"]
fn table_of_promises() {
    print("| obedient | |\n|---|---|");
    let nobody = with(0.0, SEEDS);
    for obedient in [1.0, 0.5, 0.1] {
        let outcomes = with(obedient, SEEDS);
        let part = estimate(outcomes.iter().map(kept));
        row(&format!("{obedient}: let in at the first try at its time"), part);
        let goodput = paired(&outcomes, &nobody, Outcome::goodput);
        row(&format!("{obedient}: goodput, of that without"), goodput);
        assert!(
            part.mean >= 0.95 && goodput.mean >= 0.97,
            "{obedient}: {part:?} {goodput:?}"
        );
    }
}
