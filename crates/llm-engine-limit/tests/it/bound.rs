//! Never over: what was settled in any interval is within burst + rate · w, or within the limit where that is strict.

use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{Entry, Ledger};
use crate::oracle::{refill_per_window, tick_nanos};
use crate::shapes::{Limit, any_policies, budget, config, only, only_budget, some_quota};
use crate::trace::{Allow, Run, Step, steps};
use llm_engine_limit::{Budget, Policy, Quota, Time, Unit};

const EVERYTHING: Allow = Allow {
    overruns: true,
    clock_back: true,
    bookings: false,
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
        for ledger in run.ledgers() {
            assert_within_strict_limit(&quota, &admitted(&ledger))?;
        }
    }

    #[test]
    fn settled_usage_in_a_calendar_window_is_within_the_budget(
        budget in budget(),
        steps in steps(EVERYTHING, 200),
    ) {
        assert_never_over(&only_budget(Unit::Usd, budget), &steps)?;
    }
}

fn assert_never_over(policies: &[Policy], steps: &[Step]) -> Result<(), TestCaseError> {
    for ledger in Run::play(policies, steps).ledgers() {
        match &ledger.limit {
            Limit::Quota(quota) => assert_within_burst_and_rate(quota, Duration::ZERO, &admitted(&ledger))?,
            Limit::Budget(budget) => assert_within_budget(budget, &admitted(&ledger))?,
        }
    }
    Ok(())
}

/// `grace`: what refills in so much time may be taken beyond it.
pub(crate) fn assert_within_burst_and_rate(
    quota: &Quota,
    grace: Duration,
    admitted: &[(u64, u64)],
) -> Result<(), TestCaseError> {
    let tick = tick_nanos(quota);
    let nanos_of = |duration: Duration| i128::try_from(duration.as_nanos()).expect("below 2^64 ns");
    let window = nanos_of(quota.window());
    for (index, (from, _)) in admitted.iter().enumerate() {
        let mut used = 0;
        for (until, units) in &admitted[index..] {
            used += i128::from(*units);
            let nanos = i128::from(until / tick * tick - from / tick * tick);
            let most_times_window =
                i128::from(quota.burst()) * window + refill_per_window(quota) * (nanos + nanos_of(grace));
            prop_assert!(
                used * window <= most_times_window,
                "{used} in the {nanos} ns from {from} ns under {quota:?}",
            );
        }
    }
    Ok(())
}

/// Strict quotas hold their limit in any window.
pub(crate) fn assert_within_strict_limit(
    quota: &Quota,
    admitted: &[(u64, u64)],
) -> Result<(), TestCaseError> {
    let window = u64::try_from(quota.window().as_nanos()).unwrap();
    for (index, (from, _)) in admitted.iter().enumerate() {
        let within = admitted[index..].iter().take_while(|(at, _)| at - from <= window);
        let used: u64 = within.map(|(_, units)| units).sum();
        prop_assert!(
            used <= quota.limit(),
            "{used} in the window from {from} ns, limit {}",
            quota.limit()
        );
    }
    Ok(())
}

fn assert_within_budget(budget: &Budget, admitted: &[(u64, u64)]) -> Result<(), TestCaseError> {
    let window = |at: u64| budget.calendar().window_at(Time::from_nanos(at));
    for same in admitted.chunk_by(|(at, _), (later, _)| window(*at) == window(*later)) {
        let used: u64 = same.iter().map(|(_, units)| units).sum();
        prop_assert!(used <= budget.limit(), "{used} in window {}", window(same[0].0));
    }
    Ok(())
}

/// Instants and true costs, as far as they had been reserved: without the overruns.
pub(crate) fn admitted(ledger: &Ledger) -> Vec<(u64, u64)> {
    let admitted = ledger.entries.iter().filter_map(|entry| match entry {
        Entry::Admitted { at, units } => Some((*at, *units)),
        Entry::Overrun { .. } => None,
    });
    admitted.collect()
}
