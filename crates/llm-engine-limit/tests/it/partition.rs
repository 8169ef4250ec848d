//! Whom a policy applies to, and what has a bucket of its own.

use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{applies, partition};
use crate::shapes::{any_policies, config, policy, subject, subjects};
use crate::trace::{Allow, Outcome, Run, Step, steps};
use llm_engine_limit::{Cost, Limiter, Match, Per, Policy, Quota, Subject, Time, Unit};

const ONE: Cost = Cost {
    requests: 1,
    input_tokens: 0,
    output_tokens: 0,
    ..Cost::NOTHING
};

proptest! {
    #![proptest_config(config(128))]

    /// Whatever others do, one sees it only in the buckets that it shares with them.
    #[test]
    fn keys_are_isolated(
        policies in any_policies(),
        observer in subject(),
        steps in steps(Allow { overruns: true, clock_back: false }, 100),
    ) {
        let strangers = |subject: &Subject| {
            policies.iter().all(|policy| {
                let both = applies(policy, observer) && applies(policy, *subject);
                !both || partition(policy, observer) != partition(policy, *subject)
            })
        };
        let mut run = Run::new(&policies);
        let untouched = Run::new(&policies);
        for step in &steps {
            match step {
                Step::Ask(subject, _) if !strangers(subject) => {}
                _ => {
                    run.step(step);
                }
            }
            prop_assert_eq!(run.levels(observer), untouched.limiter.levels(run.clock, observer));
        }
    }

    #[test]
    fn levels_are_given_for_the_policies_that_apply(policies in any_policies()) {
        let limiter = Limiter::new(policies.clone());
        for subject in subjects() {
            let levels = limiter.levels(Time::ZERO, subject);
            for policy in &policies {
                let given = levels.iter().filter(|level| level.policy == policy.name).count();
                let expected = policy.quotas.len() + usize::from(policy.concurrency.is_some());
                prop_assert_eq!(given, if applies(policy, subject) { expected } else { 0 });
            }
        }
    }
}

fn two_per_hour() -> Vec<(Unit, Quota)> {
    vec![(
        Unit::Requests,
        Quota::new(2, Duration::from_secs(3_600)).expect("it is exact"),
    )]
}

/// How many of two requests each are admitted to these, in this order.
fn admitted(policy: Policy, subjects: [[u32; 3]; 4]) -> [usize; 4] {
    let mut run = Run::new(&[policy]);
    subjects.map(|[caller, team, model]| {
        let subject = Subject {
            caller,
            team,
            model,
            ..Subject::default()
        };
        (0..2)
            .filter(|_| matches!(run.ask(subject, ONE), Outcome::Admitted))
            .count()
    })
}

#[test]
fn each_combination_of_per_has_buckets_of_its_own() {
    // Two callers of one team on one model, then the second on another model, then a third caller of another team.
    let subjects = [[1, 1, 1], [2, 1, 1], [2, 1, 2], [3, 2, 2]];
    for (caller, team, model, expected) in [
        (false, false, false, [2, 0, 0, 0]),
        (true, false, false, [2, 2, 0, 2]),
        (false, true, false, [2, 0, 0, 2]),
        (false, false, true, [2, 0, 2, 0]),
        (true, true, false, [2, 2, 0, 2]),
        (true, false, true, [2, 2, 2, 2]),
        (false, true, true, [2, 0, 2, 2]),
        (true, true, true, [2, 2, 2, 2]),
    ] {
        let per = Per {
            caller,
            team,
            model,
            ..Per::default()
        };
        assert_eq!(
            admitted(policy("p", per, two_per_hour()), subjects),
            expected,
            "{per:?}"
        );
    }
}

#[test]
fn ids_of_different_kinds_are_not_confused() {
    let per = Per {
        caller: true,
        model: true,
        ..Per::default()
    };
    let subjects = [[1, 0, 0], [0, 0, 1], [u32::MAX, 0, 0], [0, 0, u32::MAX]];
    assert_eq!(admitted(policy("p", per, two_per_hour()), subjects), [2, 2, 2, 2]);
}

#[test]
fn a_policy_limits_only_whom_it_matches() {
    let subjects = [[1, 1, 1], [2, 1, 1], [2, 1, 2], [3, 2, 2]];
    for (caller, team, model, expected) in [
        (Some(1), None, None, [2, 2, 2, 2]),
        (None, Some(1), None, [2, 0, 0, 2]),
        (None, None, Some(2), [2, 2, 2, 0]),
        (Some(2), Some(1), Some(2), [2, 2, 2, 2]),
        (Some(2), None, None, [2, 2, 0, 2]),
        (Some(9), None, None, [2, 2, 2, 2]),
    ] {
        let matches = Match {
            caller,
            team,
            model,
            ..Match::default()
        };
        let policy = Policy {
            matches,
            ..policy("p", Per::default(), two_per_hour())
        };
        assert_eq!(admitted(policy, subjects), expected, "{matches:?}");
    }
}

#[test]
fn several_policies_hold_together() {
    let hour = Duration::from_secs(3_600);
    let each = policy(
        "each",
        Per {
            caller: true,
            ..Per::default()
        },
        two_per_hour(),
    );
    let all = policy(
        "all",
        Per::default(),
        vec![(Unit::Requests, Quota::new(3, hour).unwrap())],
    );
    let mut run = Run::new(&[each, all]);
    let mut ask = |caller| {
        matches!(
            run.ask(
                Subject {
                    caller,
                    team: 0,
                    model: 0,
                    ..Subject::default()
                },
                ONE
            ),
            Outcome::Admitted
        )
    };
    assert_eq!([1, 1, 1, 2, 2].map(&mut ask), [true, true, false, true, false]);
    // The refusals took nothing: caller 2 has one of its own left, which the policy for all does not admit.
    let levels = run.levels(Subject {
        caller: 2,
        team: 0,
        model: 0,
        ..Subject::default()
    });
    assert_eq!(
        levels.iter().map(|level| level.remaining).collect::<Vec<_>>(),
        [1, 0]
    );
}
