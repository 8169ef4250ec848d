use llm_engine_overload::{
    CallerLoad, Estimate, Outcome, Scenario, equality, estimate, quantile, simulate_seeds,
};

use crate::{CAPACITY, SEEDS, adaptive, print, row, usual};

fn served(outcome: &Outcome) -> f64 {
    equality(outcome.callers.iter().map(|caller| caller.served as f64))
}

/// A caller at four times the capacity and one at four tenths of it: what part of the modest one's requests succeed, its
/// goodput's whole, and how much longer its slowest first tokens take than when it is alone, seed by seed.
fn modest(seeds: impl IntoIterator<Item = u64> + Clone) -> [Vec<f64>; 3] {
    let flood = CallerLoad::usual(4.0 * CAPACITY);
    let modest = CallerLoad::usual(0.4 * CAPACITY);
    let with = |flood| {
        let mut scenario = Scenario::new(adaptive(), vec![flood, modest]);
        scenario.lasts = 300.0;
        simulate_seeds(&scenario, seeds.clone())
    };
    let together = with(flood);
    let alone = with(CallerLoad { rate: 0.0, ..flood });
    let slowest = |outcome: &Outcome| quantile(&outcome.callers[1].first_tokens, 0.99);
    let success = |outcome: &Outcome| outcome.callers[1].good as f64 / outcome.callers[1].offered as f64;
    [
        together.iter().map(success).collect(),
        together.iter().map(Outcome::goodput).collect(),
        together
            .iter()
            .zip(&alone)
            .map(|(together, alone)| slowest(together) / slowest(alone))
            .collect(),
    ]
}

#[test]
fn one_caller_s_flood_is_not_another_one_s_loss() {
    let [success, _, mut times] = modest(1..=7);
    let success = estimate(success).mean;
    assert!(success >= 0.95, "{success}");
    times.sort_by(f64::total_cmp);
    assert!(times[3] <= 2.0, "{times:?}");
}

#[test]
#[ignore = "takes seconds"]
fn table_of_a_flood_and_a_modest_caller() {
    let [success, goodput, times] = modest(SEEDS);
    print("| a modest caller beside a flood | |\n|---|---|");
    let times_mean = estimate(times.iter().copied());
    row("succeeds", estimate(success.iter().copied()));
    row("good answers a second, both", estimate(goodput));
    row("slowest first tokens (p99), of alone", times_mean);
    print(&format!("seed by seed: {times:.2?}"));
    assert!(estimate(success).mean >= 0.95);
    assert!(times_mean.mean - times_mean.within <= 2.0, "{times_mean:?}");
}

/// The largest difference of what two callers that always wait have got, over ten minutes, and how equal they are at the end.
fn backlogged(seeds: impl IntoIterator<Item = u64>) -> (Vec<f64>, Vec<f64>) {
    let mut scenario = usual(adaptive(), 4.0);
    scenario.lasts = 600.0;
    scenario.warm_up = 0.0;
    let outcomes = simulate_seeds(&scenario, seeds);
    let gap = |outcome: &Outcome| {
        let ahead = outcome
            .seconds
            .iter()
            .filter_map(|second| match second.served[..] {
                [one, other] => Some(one as f64 - other as f64),
                _ => None,
            });
        let (least, most) = ahead.fold((0.0_f64, 0.0_f64), |(least, most), ahead| {
            (least.min(ahead), most.max(ahead))
        });
        most - least
    };
    (
        outcomes.iter().map(gap).collect(),
        outcomes.iter().map(served).collect(),
    )
}

/// Twenty callers, of which one sends ten times as much.
fn twenty(seeds: impl IntoIterator<Item = u64>) -> Vec<f64> {
    let base = 3.0 * CAPACITY / 29.0;
    let mut callers = vec![CallerLoad::usual(base); 19];
    callers.push(CallerLoad::usual(10.0 * base));
    let mut scenario = Scenario::new(adaptive(), callers);
    scenario.lasts = 300.0;
    simulate_seeds(&scenario, seeds).iter().map(served).collect()
}

/// What the paper on virtual token counters proves for an engine of this memory is 200,000.
#[test]
fn two_callers_that_always_wait_are_served_alike_at_every_moment() {
    let (gaps, equal) = backlogged(1..=1);
    assert!(gaps[0] <= 100_000.0, "{gaps:?}");
    assert!(equal[0] >= 0.999, "{equal:?}");
}

#[test]
fn of_twenty_callers_the_one_that_sends_ten_times_as_much_gets_no_more() {
    let equal = estimate(twenty(1..=2)).mean;
    assert!(equal >= 0.98, "{equal}");
}

#[test]
#[ignore = "takes seconds"]
fn table_of_fairness() {
    let (gaps, equal) = backlogged(SEEDS);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    let Estimate { mean, within } = estimate(gaps);
    print("| fairness | |\n|---|---|");
    print(&format!(
        "| two that always wait: largest gap, tokens | {mean:.0} ± {within:.0}, at most {most:.0} |"
    ));
    let two = equal.iter().copied().fold(1.0, f64::min);
    row("Jain's index", estimate(equal));
    let equal = twenty(SEEDS);
    let least = equal.iter().copied().fold(1.0, f64::min);
    row(
        "twenty, one with ten times as much: Jain's index",
        estimate(equal),
    );
    assert!(
        most <= 100_000.0 && two >= 0.999 && least >= 0.98,
        "{most} {two} {least}"
    );
}
