//! A policy that is only observed refuses nothing, and tells what it would have refused.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, policy};
use crate::trace::{Allow, Outcome, Run, steps};
use llm_engine_limit::{Cost, Counted, Limiter, Mode, Per, Policy, Quota, Refusal, Refused, Time, Unit};

/// Who is refused for too many running is told a later time than the one before; of who is only observed nobody is told.
fn without_guesses(mut refused: Vec<Refused>) -> Vec<Refused> {
    for refused in refused
        .iter_mut()
        .filter(|refused| refused.counted == Counted::Concurrency)
    {
        refused.wait = Duration::ZERO;
    }
    refused
}

fn observed(policies: &[Policy]) -> Vec<Policy> {
    let observed = policies.iter().map(|policy| Policy {
        mode: Mode::Observe,
        ..policy.clone()
    });
    observed.collect()
}

/// By whom alone one policy is enforced that is observed beside others.
#[derive(Debug)]
struct Twin {
    limiter: Limiter,
    open: Vec<Option<llm_engine_limit::Reservation>>,
}

proptest! {
    #![proptest_config(config(192))]

    /// For each policy, one limiter that enforces it alone.
    #[test]
    fn what_is_reported_is_what_an_enforcing_twin_refuses(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 100),
    ) {
        // Policies that stand side by side and are counted per the same are decided about together. Who is counted per
        // caller is counted per team.
        let counted_per = |policy: &Policy| Per { team: policy.per.team && !policy.per.caller, ..policy.per };
        let together = |a: &Policy, b: &Policy| a.matches == b.matches && counted_per(a) == counted_per(b);
        let mut twins: Vec<Twin> = policies
            .chunk_by(together)
            .map(|chunk| Twin { limiter: Limiter::new(chunk.to_vec()), open: Vec::new() })
            .collect();
        let mut run = Run::new(&observed(&policies));
        for step in &steps {
            let open: Vec<_> = run.open.iter().map(|(request, _)| *request).collect();
            match run.step(step) {
                Outcome::Refused(.., refusal) => prop_assert!(false, "{refusal:?}"),
                Outcome::Admitted => {
                    let (request, reservation) = run.open.last().expect("it was admitted");
                    let request = &run.requests[*request];
                    let mut expected: Vec<Refused> = Vec::new();
                    for twin in &mut twins {
                        let answer = twin.limiter.admit(run.clock, request.subject, request.cost);
                        match &answer {
                            Err(Refusal::NotNow(refusal)) => expected.extend(refusal.refused.clone()),
                            Err(Refusal::NeverFits(never)) => expected.push(Refused {
                                policy: never.policy,
                                counted: never.counted,
                                limit: never.burst,
                                asked: never.asked,
                                remaining: 0,
                                wait: Duration::MAX,
                            }),
                            Ok(_) => {}
                        }
                        twin.open.push(answer.ok());
                    }
                    let told = run.limiter.observed(reservation);
                    prop_assert_eq!(reservation.would_be_refused(), !expected.is_empty());
                    let never = |refused: &[Refused]| refused.iter().any(|refused| refused.wait == Duration::MAX);
                    if never(&expected) || never(&told) {
                        // Beside what never fits, what does not fit now is not told by one of the two.
                        prop_assert!(never(&expected) && never(&told));
                    } else {
                        prop_assert_eq!(without_guesses(told), without_guesses(expected));
                    }
                }
                Outcome::Settled => {
                    let now: Vec<_> = run.open.iter().map(|(request, _)| *request).collect();
                    let settled = open.into_iter().find(|request| !now.contains(request)).expect("one was settled");
                    let usage = run.requests[settled].usage.expect("it was settled");
                    for twin in &mut twins {
                        if let Some(reservation) = twin.open[settled].take() {
                            twin.limiter.settle(run.clock, reservation, usage);
                        }
                    }
                }
                Outcome::Nothing => {}
            }
        }
    }

    /// Beside a limiter that does not have it.
    #[test]
    fn an_observed_policy_changes_no_decision_of_the_others(
        policies in any_policies(),
        observer in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 100),
    ) {
        let mut with = policies.clone();
        for (index, policy) in observed(&observer).into_iter().enumerate() {
            with.insert(index * 2 % (with.len() + 1), Policy { name: format!("observed {index}").into(), budgets: vec![], ..policy });
        }
        let mut run = Run::new(&policies);
        let mut beside = Run::new(&policies);
        beside.limiter = Limiter::new(with);
        for step in &steps {
            let outcomes = [run.step(step), beside.step(step)];
            prop_assert_eq!(format!("{:?}", &outcomes[0]), format!("{:?}", &outcomes[1]));
        }
    }
}

#[test]
fn requests_beyond_an_observed_quota_and_maximum_are_admitted_and_told() {
    let watched = Policy {
        mode: Mode::Observe,
        concurrency: NonZeroU32::new(1),
        ..policy(
            "watched",
            Per::default(),
            vec![(Unit::Requests, Quota::new(2, Duration::from_secs(60)).unwrap())],
        )
    };
    let mut limiter = Limiter::new(vec![watched]);
    let one = Cost {
        requests: 1,
        ..Cost::NOTHING
    };
    let first = limiter.admit(Time::ZERO, ANYONE, one).unwrap();
    assert!(!first.would_be_refused() && limiter.observed(&first).is_empty());
    let second = limiter.admit(Time::ZERO, ANYONE, one).unwrap();
    assert!(second.would_be_refused());
    assert_eq!(&*limiter.observed(&second)[0].policy, "watched");
    // The one that would not have run is not counted as running, and gives nothing back.
    limiter.settle(Time::ZERO, first, one);
    limiter.settle(Time::ZERO, second, Cost::NOTHING);
    let third = limiter.admit(Time::ZERO, ANYONE, one).unwrap();
    assert!(!third.would_be_refused());
    limiter.settle(Time::ZERO, third, one);
    let fourth = limiter.admit(Time::ZERO, ANYONE, one).unwrap();
    assert_eq!(limiter.observed(&fourth)[0].wait, Duration::from_secs(30));
}
