use llm_engine_overload::{Outcome, simulate_seeds};

use crate::{adaptive, mean, usual};

fn with(obedient: f64) -> Vec<Outcome> {
    let mut scenario = usual(adaptive(), 2.0);
    scenario.lasts = 300.0;
    scenario.warm_up = 120.0;
    scenario.clients.retries = 3;
    scenario.clients.obedient = obedient;
    simulate_seeds(&scenario, 1..=3)
}

#[test]
fn who_comes_at_its_time_is_let_in_and_nothing_is_lost_by_it() {
    let kept = |outcome: &Outcome| outcome.kept as f64 / outcome.claimed as f64;
    let nobody = mean(&with(0.0), Outcome::goodput);
    // With all of them obedient nearly all that comes is promised, and the fluctuations of the engine are not absorbed by others.
    for (obedient, least) in [(1.0, 0.75), (0.5, 0.95), (0.1, 0.95)] {
        let outcomes = with(obedient);
        let part = mean(&outcomes, kept);
        assert!(part >= least, "{obedient}: {part}");
        let goodput = mean(&outcomes, Outcome::goodput) / nobody;
        assert!(goodput >= 0.95, "{obedient}: {goodput}");
    }
}
