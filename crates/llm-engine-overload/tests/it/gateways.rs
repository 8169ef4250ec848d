use std::ops::RangeInclusive;

use llm_engine_overload::{Estimate, Outcome, simulate_seeds};

use crate::{adaptive, paired, print, row, usual};

/// What three gateways with 70, 20 and 10 % of the load do together, of what one does.
fn three_of_one(load: f64, seeds: impl IntoIterator<Item = u64> + Clone) -> Estimate {
    let mut scenario = usual(adaptive(), load);
    scenario.lasts = 300.0;
    let one = simulate_seeds(&scenario, seeds.clone());
    scenario.gateways = vec![7.0, 2.0, 1.0];
    paired(&simulate_seeds(&scenario, seeds), &one, Outcome::goodput)
}

#[test]
fn three_gateways_that_know_nothing_of_each_other_do_the_work_of_one() {
    let part = three_of_one(2.0, 1..=6).mean;
    assert!(part > 0.97, "{part}");
}

/// Twenty know it only to 0.03, which is what is asked.
const MANY_SEEDS: RangeInclusive<u64> = 301..=380;

#[test]
#[ignore = "takes seconds"]
fn table_of_three_gateways() {
    print("| load | three gateways, of one |\n|---|---|");
    for load in [2.0, 10.0] {
        let part = three_of_one(load, MANY_SEEDS);
        row(&format!("{load}x"), part);
        assert!(part.mean >= 0.97, "{part:?}");
    }
}
