//! No more than the maximum run at once, whoever ends in whichever way.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{Key, applies, partition};
use crate::shapes::{ANYONE, any_policies, config, policy, subjects};
use crate::trace::{Allow, Outcome, Run, Used, steps, used};
use llm_engine_limit::{Cost, Counted, Level, Limiter, Per, Policy, Quota, Refusal, Time, Unit};

const ONE: Cost = Cost {
    requests: 1,
    input_tokens: 0,
    output_tokens: 0,
    ..Cost::NOTHING
};

fn at_most(most: u32) -> Policy {
    Policy {
        concurrency: NonZeroU32::new(most),
        ..policy("few", Per::default(), vec![])
    }
}

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn never_more_than_the_maximum_run_and_none_after_all_have_ended(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 120),
        last in used(true),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let outcome = run.step(step);
            let running = running(&run);
            for ((policy_index, _), running) in &running {
                if let Some(most) = policies[*policy_index].concurrency {
                    prop_assert!(*running <= u64::from(most.get()));
                }
            }
            if let Outcome::Refused(subject, _, Refusal::NotNow(refusal)) = outcome {
                for (index, policy) in policies.iter().enumerate().filter(|(_, policy)| applies(policy, subject)) {
                    let runs = running.get(&(index, partition(policy, subject))).copied().unwrap_or(0);
                    let full = policy.concurrency.is_some_and(|most| runs >= u64::from(most.get()));
                    let refused: Vec<_> = refusal
                        .refused
                        .iter()
                        .filter(|refused| refused.policy == policy.name && refused.counted == Counted::Concurrency)
                        .collect();
                    prop_assert_eq!(refused.len(), usize::from(full));
                    prop_assert!(refused.iter().all(|refused| !refused.wait.is_zero() && !refusal.exact));
                }
            }
        }
        run.settle_all(last);
        for subject in subjects() {
            for level in run.levels(subject).iter().filter(|level| level.counted == Counted::Concurrency) {
                prop_assert_eq!(level.remaining, level.limit);
            }
        }
    }
}

/// Open requests by policy and key.
fn running(run: &Run) -> HashMap<(usize, Key), u64> {
    let mut running = HashMap::new();
    for (request, _) in &run.open {
        let subject = run.requests[*request].subject;
        for (index, policy) in run
            .policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| applies(policy, subject))
        {
            *running.entry((index, partition(policy, subject))).or_default() += 1;
        }
    }
    running
}

#[test]
fn a_place_is_free_once_a_request_has_ended_however_it_ended() {
    let mut run = Run::new(&[at_most(2)]);
    for used in [Used::All, Used::Nothing] {
        assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
        assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
        let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask(ANYONE, ONE) else {
            panic!("two run")
        };
        assert!(!refusal.exact && !refusal.wait.is_zero());
        let refused = &refusal.refused[0];
        assert_eq!(
            (refused.counted, refused.limit, refused.asked, refused.remaining),
            (Counted::Concurrency, 2, 1, 0)
        );
        run.settle(0, used.of(ONE));
        assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
        run.settle_all(used);
    }
}

#[test]
fn a_request_that_runs_long_counts_as_long_as_it_runs() {
    let mut run = Run::new(&[at_most(1)]);
    assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
    run.clock = run.clock + Duration::from_secs(30 * 86_400);
    assert!(matches!(
        run.ask(ANYONE, ONE),
        Outcome::Refused(.., Refusal::NotNow(_))
    ));
    run.settle_all(Used::All);
    assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
}

#[test]
fn the_estimate_follows_how_long_requests_run_and_stays_above_zero() {
    for run_time in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(100)] {
        let mut run = Run::new(&[at_most(1)]);
        for _ in 0..1_000 {
            run.ask(ANYONE, ONE);
            run.clock = run.clock + run_time;
            run.settle_all(Used::All);
        }
        run.ask(ANYONE, ONE);
        let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask(ANYONE, ONE) else {
            panic!("one runs")
        };
        assert!(!refusal.wait.is_zero());
        assert!(
            refusal.wait <= run_time.max(Duration::from_secs(1)) * 2,
            "{refusal:?} after runs of {run_time:?}"
        );
    }
}

#[test]
fn who_is_refused_for_a_place_comes_back_one_by_one() {
    let mut run = Run::new(&[at_most(4)]);
    for _ in 0..4 {
        assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
    }
    // While none has ended each is taken to run for a second.
    for quarter in 1..=240 {
        let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask(ANYONE, ONE) else {
            panic!("four run")
        };
        assert_eq!(refusal.wait, Duration::from_millis(250) * quarter);
    }
    let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask(ANYONE, ONE) else {
        panic!("four run")
    };
    assert!(refusal.wait <= Duration::from_secs(60), "{refusal:?}");
}

#[test]
fn one_refused_for_its_place_takes_nothing_from_the_quotas_beside_it() {
    let hour = Duration::from_secs(3_600);
    let quotas = vec![(Unit::Requests, Quota::new(10, hour).unwrap())];
    let mut limiter = Limiter::new(vec![Policy { quotas, ..at_most(1) }]);
    let first = limiter.admit(Time::ZERO, ANYONE, ONE).unwrap();
    assert!(limiter.admit(Time::ZERO, ANYONE, ONE).is_err());
    let remaining = |levels: Vec<Level>| levels.iter().map(|level| level.remaining).collect::<Vec<_>>();
    assert_eq!(remaining(limiter.levels(Time::ZERO, ANYONE)), [9, 0]);
    limiter.settle(Time::ZERO, first, Cost::NOTHING);
    assert_eq!(remaining(limiter.levels(Time::ZERO, ANYONE)), [10, 1]);
}
