//! Whatever happens among bookings: the bounds hold, refusals change nothing, and promises are kept.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::bookings::{GRACE, MINUTE, NANO, caller, unique};
use crate::bound::{admitted, assert_within_burst_and_rate, assert_within_strict_limit};
use crate::ledger::{applies, partition};
use crate::shapes::{ANYONE, Limit, any_policies, config, only, quota_policies, some_quota, subjects};
use crate::trace::{Allow, Outcome, Run, Step, before, steps};
use llm_engine_limit::{Cost, Counted, NotNow, Policy, Quota, Refusal, Time, Unit};

const BOOKING: Allow = Allow {
    overruns: true,
    clock_back: false,
    bookings: true,
};

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn with_bookings_settled_usage_is_within_burst_rate_and_grace(
        policies in any_policies(),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 150),
    ) {
        assert_never_over(&policies, &steps)?;
    }

    #[test]
    fn with_bookings_settled_usage_of_one_busy_bucket_is_within_burst_rate_and_grace(
        quota in some_quota(),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 250),
    ) {
        assert_never_over(&only(Unit::OutputTokens, quota), &steps)?;
    }

    #[test]
    fn strict_quotas_hold_their_limit_in_any_window_even_with_bookings(
        quota in some_quota().prop_filter("strict", Quota::is_strict),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 250),
    ) {
        let run = Run::play(&only(Unit::OutputTokens, quota), &steps);
        for ledger in run.ledgers() {
            assert_within_strict_limit(&quota, &admitted(&ledger))?;
            assert_within_burst_and_rate(&quota, Duration::ZERO, &admitted(&ledger))?;
        }
    }

    /// What is missing does not change; what is kept back for those who are due may, when one of them is refused.
    #[test]
    fn a_refusal_that_books_changes_no_level(
        policies in any_policies(),
        steps in steps(BOOKING, 120),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let earlier = run.clock;
            let before = full_in(&run, earlier);
            if let Outcome::Refused(..) = run.step(step) {
                let after = full_in(&run, run.clock);
                for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
                    let (was_full_at, is_full_at) = (earlier + *before, run.clock + *after);
                    prop_assert!(was_full_at == is_full_at || (after.is_zero() && was_full_at < run.clock));
                }
            }
        }
    }

    /// Beside one whose refused requests, and those who book, have never come.
    #[test]
    fn bookings_that_are_not_kept_leave_every_level_as_it_was(
        policies in any_policies(),
        steps in steps(BOOKING, 120),
    ) {
        let mut run = Run::new(&policies);
        let mut spared = Run::new(&policies);
        for step in &steps {
            let outcome = run.step(step);
            spared.clock = run.clock;
            match step {
                Step::Settle(..) if matches!(outcome, Outcome::Settled) => {
                    spared.step(step);
                }
                _ if matches!(outcome, Outcome::Admitted) => {
                    let (request, _) = run.open.last().expect("it is open");
                    let request = &run.requests[*request];
                    // One that comes at its booked time may be admitted a little early, which the other does not know.
                    prop_assume!(matches!(spared.ask(request.subject, request.cost), Outcome::Admitted));
                }
                _ => {}
            }
            prop_assert_eq!(full_in(&run, run.latest), full_in(&spared, run.latest));
        }
    }

    #[test]
    fn answers_among_bookings_are_consistent(
        policies in any_policies(),
        steps in steps(BOOKING, 150),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let outcome = run.step(step);
            if let Outcome::Refused(subject, cost, Refusal::NotNow(refusal)) = outcome {
                prop_assert!(!refusal.refused.is_empty());
                prop_assert!(!refusal.wait.is_zero() || run.clock == Time::END, "{refusal:?}");
                let longest = refusal.refused.iter().map(|refused| refused.wait).max();
                prop_assert!(refusal.wait >= longest.unwrap_or_default() || refusal.booked, "{refusal:?}");
                for refused in &refusal.refused {
                    let policy = policies.iter().find(|policy| policy.name == refused.policy).expect("it has a name");
                    prop_assert!(applies(policy, subject));
                    prop_assert!(refused.counted.unit().is_none_or(|unit| unit.of(cost) == refused.asked));
                }
            }
        }
    }

    #[test]
    fn with_no_other_booking_a_promised_time_is_the_first_at_which_the_request_is_admitted(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 80),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let Step::Ask(subject, want) = step else {
                run.step(step);
                continue;
            };
            let cost = run.cost(*want);
            let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask_or_book(*subject, cost, unique(1)) else {
                continue;
            };
            let concurrency = |refusal: &NotNow| {
                refusal.refused.iter().any(|refused| refused.counted == Counted::Concurrency)
            };
            prop_assert_eq!(refusal.exact, !concurrency(&refusal));
            if refusal.booked {
                prop_assert!(refusal.exact && refusal.wait <= MINUTE);
            }
            let due = run.clock + refusal.wait;
            if !refusal.exact || due == Time::END {
                continue;
            }
            run.clock = run.clock.max(before(due, NANO));
            if run.clock < due {
                let early = run.ask_or_book(*subject, cost, unique(1));
                let Outcome::Refused(.., Refusal::NotNow(again)) = early else {
                    return Err(TestCaseError::fail(format!("before {due:?}: {early:?}, {refusal:?}")));
                };
                prop_assert_eq!(run.clock + again.wait, due);
                prop_assert!(again.booked || !refusal.booked);
            }
            run.clock = due;
            let on_time = run.ask_or_book(*subject, cost, unique(1));
            prop_assert!(matches!(on_time, Outcome::Admitted), "at {due:?}: {on_time:?}");
        }
    }

    #[test]
    fn promised_times_of_one_bucket_are_distinct_and_all_are_kept(
        // A strict quota has no slack: who comes a nanosecond late there makes the next one come late.
        quota in some_quota().prop_filter("not strict", |quota| !quota.is_strict()),
        before in steps(Allow { overruns: true, ..Allow::default() }, 40),
        asks in vec((0..3_u32, 0..=1_000_u64, 0..=100_u64), 1..=30),
    ) {
        let mut run = Run::play(&only(Unit::OutputTokens, quota), &before);
        prop_assume!(run.clock < Time::from_nanos(1 << 59));
        let mut first_due = Time::END;
        for (digest, (id, per_mille, nanos)) in (0..).zip(asks) {
            if run.clock + Duration::from_nanos(nanos) < first_due {
                run.clock = run.clock + Duration::from_nanos(nanos);
            }
            let cost = Cost { output_tokens: (quota.burst() * per_mille / 1_000).max(1), ..Cost::NOTHING };
            run.ask_or_book(caller(id), cost, unique(digest));
            first_due = run.promises.iter().map(|promise| promise.due).min().unwrap_or(Time::END);
        }
        let mut promises = run.promises.clone();
        promises.sort_by_key(|promise| promise.due);
        for pair in promises.windows(2) {
            prop_assert!(pair[0].due < pair[1].due, "{pair:?}");
        }
        for promise in promises {
            prop_assert!(promise.due > run.clock);
            run.clock = promise.due;
            let outcome = run.ask_or_book(promise.subject, promise.cost, promise.fingerprint);
            prop_assert!(matches!(outcome, Outcome::Admitted), "{promise:?} {outcome:?}");
        }
    }

    #[test]
    fn promised_times_of_several_policies_are_distinct_by_bucket(
        policies in quota_policies(),
        before in steps(Allow { overruns: true, ..Allow::default() }, 40),
        asks in steps(BOOKING, 60),
    ) {
        let mut run = Run::play(&policies, &before);
        for (digest, step) in (100..).zip(&asks) {
            if let Step::Book(subject, want, _) = step {
                run.ask_or_book(*subject, run.cost(*want), unique(digest));
            }
        }
        for (index, one) in run.promises.iter().enumerate() {
            for other in &run.promises[index + 1..] {
                let share = |policy: &Policy| {
                    applies(policy, one.subject)
                        && applies(policy, other.subject)
                        && partition(policy, one.subject) == partition(policy, other.subject)
                };
                prop_assert!(one.due != other.due || !policies.iter().any(share), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn many_units_at_once_are_as_good_as_one_by_one_among_bookings(
        quota in some_quota(),
        steps in steps(BOOKING, 60),
        count in 1..=40_u64,
    ) {
        let cost = |units| Cost { output_tokens: units, ..Cost::NOTHING };
        let policies = only(Unit::OutputTokens, quota);
        let mut at_once = Run::play(&policies, &steps);
        let mut singly = Run::play(&policies, &steps);
        let all = matches!(at_once.ask(ANYONE, cost(count)), Outcome::Admitted);
        let admitted = (0..count).filter(|_| matches!(singly.ask(ANYONE, cost(1)), Outcome::Admitted)).count();
        prop_assert_eq!(all, admitted == usize::try_from(count).unwrap());
        if all {
            prop_assert_eq!(at_once.levels(ANYONE), singly.levels(ANYONE));
        }
    }
}

fn full_in(run: &Run, now: Time) -> Vec<Vec<Duration>> {
    subjects()
        .map(|subject| {
            let levels = run.limiter.levels(now, subject);
            levels.iter().map(|level| level.full_in).collect()
        })
        .collect()
}

fn assert_never_over(policies: &[Policy], steps: &[Step]) -> Result<(), TestCaseError> {
    for ledger in Run::play(policies, steps).ledgers() {
        if let Limit::Quota(quota) = &ledger.limit {
            let grace = if quota.is_strict() { Duration::ZERO } else { GRACE };
            assert_within_burst_and_rate(quota, grace, &admitted(&ledger))?;
        }
    }
    Ok(())
}
