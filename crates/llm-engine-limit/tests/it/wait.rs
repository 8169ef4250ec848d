//! Never false: with nothing else happening, who is refused is refused until its wait is over, and admitted then.

use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{any_policies, budget, config, only, only_budget, quota_policies, some_quota};
use crate::trace::{Allow, Outcome, Run, Step, steps};
use llm_engine_limit::{Cost, Counted, NotNow, Refusal, Subject, Time, Unit};

const NANO: Duration = Duration::from_nanos(1);

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn refused_until_the_wait_is_over_and_admitted_then(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 120),
    ) {
        assert_waits_are_exact(Run::new(&only(Unit::OutputTokens, quota)), &steps)?;
    }

    #[test]
    fn under_several_policies_each_refuses_until_its_own_wait_is_over(
        policies in quota_policies(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 80),
    ) {
        assert_waits_are_exact(Run::new(&policies), &steps)?;
    }

    #[test]
    fn quotas_beside_a_concurrency_keep_their_exact_waits(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 80),
    ) {
        assert_waits_are_exact(Run::new(&policies), &steps)?;
    }

    #[test]
    fn a_budget_refuses_until_the_turn_and_admits_then(
        budget in budget(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 120),
    ) {
        assert_waits_are_exact(Run::new(&only_budget(Unit::Usd, budget)), &steps)?;
    }

    /// Two callers can read the clock in one order and be decided about in the other.
    #[test]
    fn a_wait_counts_from_the_instant_that_the_caller_gave(
        quota in some_quota(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 120),
    ) {
        assert_waits_are_exact(Run::new(&only(Unit::OutputTokens, quota)), &steps)?;
    }
}

fn assert_waits_are_exact(mut run: Run, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in steps {
        if let Outcome::Refused(subject, cost, Refusal::NotNow(refusal)) = run.step(step) {
            assert_refusal_is_consistent(&refusal)?;
            assert_wait_is_exact(&mut run, subject, cost, &refusal)?;
        }
    }
    Ok(())
}

fn assert_refusal_is_consistent(refusal: &NotNow) -> Result<(), TestCaseError> {
    let longest = refusal.refused.iter().map(|refused| refused.wait).max();
    prop_assert_eq!(Some(refusal.wait), longest);
    prop_assert!(refusal.refused.iter().all(|refused| !refused.wait.is_zero()));
    let guessed = refusal
        .refused
        .iter()
        .any(|refused| refused.counted == Counted::Concurrency);
    prop_assert_eq!(refusal.exact, !guessed);
    for refused in &refusal.refused {
        prop_assert!(refused.remaining < refused.asked, "{refused:?}");
    }
    Ok(())
}

/// Asks again just before and at the end of each quota's wait; all but the last is refused, so changes nothing.
fn assert_wait_is_exact(
    run: &mut Run,
    subject: Subject,
    cost: Cost,
    refusal: &NotNow,
) -> Result<(), TestCaseError> {
    let asked_at = run.clock;
    let quotas = refusal
        .refused
        .iter()
        .filter(|refused| refused.counted != Counted::Concurrency);
    let mut waits: Vec<_> = quotas
        .map(|refused| (refused.wait, &refused.policy, refused.counted))
        .collect();
    waits.sort_by_key(|(wait, ..)| *wait);
    for (index, (wait, policy, counted)) in waits.iter().enumerate() {
        if asked_at.as_nanos() + u64::try_from(wait.as_nanos()).expect("centuries") >= Time::END.as_nanos() {
            return Ok(());
        }
        let tick = run
            .policies
            .iter()
            .flat_map(|policy| &policy.quotas)
            .map(|(_, quota)| quota.tick())
            .max();
        // Only budgets refused: they have no ticks.
        let tick = tick.unwrap_or(NANO);
        for early in [wait.saturating_sub(tick), *wait - NANO] {
            run.clock = run.clock.max(asked_at + early);
            if run.clock < asked_at + *wait {
                let outcome = run.ask(subject, cost);
                prop_assert!(
                    names(&outcome, policy, *counted),
                    "{early:?} of {wait:?}: {outcome:?}"
                );
            }
        }
        run.clock = asked_at + *wait;
        let outcome = run.ask(subject, cost);
        prop_assert!(!names(&outcome, policy, *counted), "after {wait:?}: {outcome:?}");
        if refusal.exact && index + 1 == waits.len() {
            prop_assert!(
                matches!(outcome, Outcome::Admitted),
                "after {wait:?}: {outcome:?}"
            );
        }
        if let Outcome::Admitted = outcome {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether this quota is one of those that refused.
fn names(outcome: &Outcome, policy: &str, counted: Counted) -> bool {
    let Outcome::Refused(_, _, Refusal::NotNow(refusal)) = outcome else {
        return false;
    };
    refusal
        .refused
        .iter()
        .any(|refused| &*refused.policy == policy && refused.counted == counted)
}

#[test]
fn the_longest_wait_of_several_policies_is_the_answer() {
    use crate::shapes::policy;
    use llm_engine_limit::{Limiter, Per, Quota};

    let minute = Duration::from_secs(60);
    let slow = policy(
        "slow",
        Per::default(),
        vec![(Unit::Requests, Quota::with_burst(1, minute, 1).unwrap())],
    );
    let fast = policy(
        "fast",
        Per::default(),
        vec![(Unit::Requests, Quota::with_burst(60, minute, 1).unwrap())],
    );
    let mut limiter = Limiter::new(vec![fast, slow]);
    let one = Cost {
        requests: 1,
        ..Cost::NOTHING
    };
    let first = limiter.admit(Time::ZERO, crate::shapes::ANYONE, one).unwrap();
    let Err(Refusal::NotNow(refusal)) = limiter.admit(Time::ZERO, crate::shapes::ANYONE, one) else {
        panic!("both are empty")
    };
    assert_eq!(refusal.wait, minute);
    assert!(refusal.exact);
    let waits: Vec<_> = refusal
        .refused
        .iter()
        .map(|refused| (&*refused.policy, refused.wait))
        .collect();
    assert_eq!(waits, [("fast", Duration::from_secs(1)), ("slow", minute)]);
    limiter.settle(Time::ZERO, first, one);
}
