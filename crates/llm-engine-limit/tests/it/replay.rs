//! A refund mints nothing: every admitted history, replayed at its true costs, is admissible. What was used beyond a
//! reservation is charged when it is settled, into debt if need be.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ledger::{Entry, Ledger};
use crate::oracle::Stock;
use crate::shapes::{ANYONE, any_policies, budget, config, only, only_budget, small_quota, some_quota};
use crate::trace::{Allow, Pause, Pick, Run, Step, Used, pause, steps, used, want};
use llm_engine_limit::{Time, Unit};

const EVERYTHING: Allow = Allow {
    overruns: true,
    clock_back: true,
    bookings: false,
};

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn histories_under_several_policies_are_admissible_at_their_true_costs(
        policies in any_policies(),
        steps in steps(EVERYTHING, 120),
    ) {
        assert_admissible(&mut Run::play(&policies, &steps))?;
    }

    #[test]
    fn histories_of_one_busy_bucket_are_admissible_at_their_true_costs(
        quota in some_quota(),
        steps in steps(EVERYTHING, 200),
    ) {
        assert_admissible(&mut Run::play(&only(Unit::Tokens, quota), &steps))?;
    }

    #[test]
    fn histories_of_a_tiny_bucket_are_admissible_at_their_true_costs(
        quota in small_quota(),
        steps in steps(EVERYTHING, 60),
    ) {
        assert_admissible(&mut Run::play(&only(Unit::OutputTokens, quota), &steps))?;
    }

    #[test]
    fn once_all_are_settled_a_bucket_stands_as_if_the_true_costs_had_been_known(
        quota in some_quota(),
        steps in steps(EVERYTHING, 160),
    ) {
        assert_settles_at_the_truth(&mut Run::play(&only(Unit::OutputTokens, quota), &steps))?;
    }

    #[test]
    fn histories_of_a_budget_are_admissible_at_their_true_costs(
        budget in budget(),
        steps in steps(EVERYTHING, 160),
    ) {
        assert_admissible(&mut Run::play(&only_budget(Unit::Usd, budget), &steps))?;
    }

    #[test]
    fn once_all_are_settled_a_budget_stands_as_if_the_true_costs_had_been_known(
        budget in budget(),
        steps in steps(EVERYTHING, 160),
    ) {
        assert_settles_at_the_truth(&mut Run::play(&only_budget(Unit::Usd, budget), &steps))?;
    }

    /// Up to 50 reservations are open together, end in any order, and meanwhile others come.
    #[test]
    fn many_overlapping_reservations_mint_nothing(
        quota in some_quota(),
        rounds in vec((vec((pause(), want()), 1..=50), vec((any::<Pick>(), pause(), used(true)), 1..=50)), 1..=4),
    ) {
        let mut run = Run::new(&only(Unit::OutputTokens, quota));
        for (asks, ends) in rounds {
            for (pause, want) in asks {
                // Nobody waits long here, lest the bucket be full again all the time.
                let pause = if let Pause::Refills(..) = pause { pause } else { Pause::Nanos(0) };
                run.step(&Step::Pass(pause));
                run.step(&Step::Ask(ANYONE, want));
            }
            for (pick, pause, used) in ends {
                run.step(&Step::Pass(if let Pause::Huge = pause { Pause::Nanos(1) } else { pause }));
                run.step(&Step::Settle(pick, used));
            }
        }
        assert_admissible(&mut run)?;
    }
}

/// Replays every bucket, and ends with nothing open, so that every refund has been made.
fn assert_admissible(run: &mut Run) -> Result<(), TestCaseError> {
    assert_replays(run)?;
    run.settle_all(Used::Nothing);
    assert_replays(run)
}

/// No less comes back than can: once nothing is open, the bucket stands where the replay stands.
fn assert_settles_at_the_truth(run: &mut Run) -> Result<(), TestCaseError> {
    run.settle_all(Used::Nothing);
    let now = run.latest.as_nanos();
    for ledger in run.ledgers() {
        let mut pool = replay(&ledger)?;
        let level = &run.limiter.levels(run.latest, ledger.subject)[ledger.position];
        prop_assert_eq!(level.remaining, pool.remaining(now));
        let full_in = pool.full_at(now) - u128::from(now);
        let end = Time::END.since(run.latest);
        prop_assert!(
            level.full_in.as_nanos() == full_in || level.full_in > end,
            "{level:?}, truly {full_in} ns"
        );
    }
    Ok(())
}

fn assert_replays(run: &Run) -> Result<(), TestCaseError> {
    let now = run.latest.as_nanos();
    for ledger in run.ledgers() {
        let mut pool = replay(&ledger)?;
        let level = &run.limiter.levels(run.latest, ledger.subject)[ledger.position];
        prop_assert!(
            level.remaining <= pool.remaining(now),
            "{level:?} is above the truth, {pool:?}"
        );
        let full_at = u128::from(now) + level.full_in.as_nanos();
        let end = u128::from(Time::END.as_nanos());
        prop_assert!(
            full_at >= pool.full_at(now).min(end),
            "{level:?} fills before the truth, {pool:?}"
        );
    }
    Ok(())
}

fn replay(ledger: &Ledger) -> Result<Stock, TestCaseError> {
    let mut pool = Stock::full(&ledger.limit);
    for entry in &ledger.entries {
        match *entry {
            Entry::Admitted { at, units } => {
                let there = pool.remaining(at);
                prop_assert!(
                    pool.take(at, units),
                    "{units} at {at} ns of {there} under {:?}",
                    ledger.limit
                );
            }
            Entry::Overrun { at, units } => pool.charge(at, units),
        }
    }
    Ok(pool)
}
