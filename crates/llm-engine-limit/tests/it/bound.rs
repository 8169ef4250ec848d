//! Never over: what was settled in any interval is within burst + rate · w, or within the limit where that is strict.

use proptest::prelude::*;

use crate::ledger::{Entry, Ledger};
use crate::oracle::{refill_per_window, tick_nanos};
use crate::shapes::{any_policies, config, only, some_quota};
use crate::trace::{Allow, Run, Step, steps};
use llm_engine_limit::{Policy, Quota, Unit};

const EVERYTHING: Allow = Allow {
    overruns: true,
    clock_back: true,
};

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn settled_usage_in_any_interval_is_within_burst_and_rate(
        policies in any_policies(),
        steps in steps(EVERYTHING, 120),
    ) {
        assert_never_over(&policies, &steps)?;
    }

    #[test]
    fn settled_usage_of_one_busy_bucket_is_within_burst_and_rate(
        quota in some_quota(),
        steps in steps(EVERYTHING, 200),
    ) {
        assert_never_over(&only(Unit::OutputTokens, quota), &steps)?;
    }

    #[test]
    fn strict_quotas_hold_their_limit_in_any_window(
        quota in some_quota().prop_filter("strict", Quota::is_strict),
        steps in steps(EVERYTHING, 160),
    ) {
        let run = Run::play(&only(Unit::OutputTokens, quota), &steps);
        let window = u64::try_from(quota.window().as_nanos()).unwrap();
        for ledger in run.ledgers() {
            let admitted = admitted(&ledger);
            for (index, (from, _)) in admitted.iter().enumerate() {
                let within = admitted[index..].iter().take_while(|(at, _)| at - from <= window);
                let used: u64 = within.map(|(_, units)| units).sum();
                prop_assert!(used <= quota.limit(), "{used} in the window from {from} ns, limit {}", quota.limit());
            }
        }
    }
}

fn assert_never_over(policies: &[Policy], steps: &[Step]) -> Result<(), TestCaseError> {
    for ledger in Run::play(policies, steps).ledgers() {
        let quota = &ledger.quota;
        let tick = tick_nanos(quota);
        let window = i128::try_from(quota.window().as_nanos()).expect("below 2^64 ns");
        let admitted = admitted(&ledger);
        for (index, (from, _)) in admitted.iter().enumerate() {
            let mut used = 0;
            for (until, units) in &admitted[index..] {
                used += i128::from(*units);
                let nanos = i128::from(until / tick * tick - from / tick * tick);
                let most_times_window = i128::from(quota.burst()) * window + refill_per_window(quota) * nanos;
                prop_assert!(
                    used * window <= most_times_window,
                    "{used} in the {nanos} ns from {from} ns under {quota:?}",
                );
            }
        }
    }
    Ok(())
}

/// Instants and true costs, as far as they had been reserved: without the overruns.
fn admitted(ledger: &Ledger) -> Vec<(u64, u64)> {
    let admitted = ledger.entries.iter().filter_map(|entry| match entry {
        Entry::Admitted { at, units } => Some((*at, *units)),
        Entry::Overrun { .. } => None,
    });
    admitted.collect()
}
