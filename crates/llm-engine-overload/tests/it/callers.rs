use llm_engine_overload::{CallerLoad, Outcome, Scenario, equality, simulate, simulate_seeds};

use crate::{CAPACITY, adaptive, mean, usual};

fn served(outcome: &Outcome) -> f64 {
    equality(outcome.callers.iter().map(|caller| caller.served as f64))
}

#[test]
fn one_caller_s_flood_is_not_another_one_s_loss() {
    let callers = vec![
        CallerLoad::usual(4.0 * CAPACITY),
        CallerLoad::usual(0.4 * CAPACITY),
    ];
    let mut scenario = Scenario::new(adaptive(), callers);
    scenario.lasts = 300.0;
    let success = mean(&simulate_seeds(&scenario, 1..=4), |outcome| {
        outcome.callers[1].good as f64 / outcome.callers[1].offered as f64
    });
    assert!(success >= 0.95, "{success}");
}

/// What the paper on virtual token counters proves for an engine of this memory is 200,000.
#[test]
fn two_callers_that_always_wait_are_served_alike_at_every_moment() {
    let mut scenario = usual(adaptive(), 4.0);
    scenario.lasts = 600.0;
    scenario.warm_up = 0.0;
    let outcome = simulate(&scenario);
    let ahead = outcome
        .seconds
        .iter()
        .filter_map(|second| match second.served[..] {
            [one, other] => Some(one.cast_signed() - other.cast_signed()),
            _ => None,
        });
    let (least, most) = ahead.fold((0, 0), |(least, most), ahead| (ahead.min(least), ahead.max(most)));
    assert!(most - least <= 100_000, "{least} {most}");
    assert!(served(&outcome) >= 0.999, "{}", served(&outcome));
}

#[test]
fn of_twenty_callers_the_one_that_sends_ten_times_as_much_gets_no_more() {
    let base = 3.0 * CAPACITY / 29.0;
    let mut callers = vec![CallerLoad::usual(base); 19];
    callers.push(CallerLoad::usual(10.0 * base));
    let mut scenario = Scenario::new(adaptive(), callers);
    scenario.lasts = 300.0;
    let equal = mean(&simulate_seeds(&scenario, 1..=2), served);
    assert!(equal >= 0.98, "{equal}");
}

#[test]
fn three_gateways_that_know_nothing_of_each_other_do_the_work_of_one() {
    let mut scenario = usual(adaptive(), 2.0);
    let one = mean(&simulate_seeds(&scenario, 1..=6), Outcome::goodput);
    scenario.gateways = vec![7.0, 2.0, 1.0];
    let three = mean(&simulate_seeds(&scenario, 1..=6), Outcome::goodput);
    assert!(three / one > 0.93, "{three} of {one}");
}
