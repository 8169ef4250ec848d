//! Whom a policy applies to, and what has a bucket of its own.

use std::time::Duration;

use proptest::prelude::*;

use crate::ledger::{applies, partition};
use crate::shapes::{any_policies, config, limits_of, policy, subject, subjects};
use crate::trace::{Allow, Outcome, Run, Step, steps};
use llm_engine_limit::{Cost, Limiter, Match, Per, Policy, Quota, Subject, Time, Unit, User};

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
        steps in steps(Allow { overruns: true, clock_back: false, ..Allow::default() }, 100),
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
                let expected = limits_of(policy).count() + usize::from(policy.concurrency.is_some());
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

const ALICE: User = User([1, 2, 3]);

/// Of which kinds `bits` has one each, in the order of the fields.
fn per_kinds(bits: u32) -> Per {
    let is = |bit: u32| bits & (1 << bit) != 0;
    Per {
        caller: is(0),
        team: is(1),
        user: is(2),
        model: is(3),
        route: is(4),
        address: is(5),
    }
}

/// Others than this one in one kind each, in the order of the fields of `Per`.
fn neighbours(subject: Subject) -> [Subject; 6] {
    let Subject {
        caller,
        team,
        model,
        route,
        address,
        user: User(user),
    } = subject;
    [
        // Another caller of the same team.
        Subject {
            caller: caller + 1,
            ..subject
        },
        // Another team has other callers.
        Subject {
            caller: caller + 2,
            team: team + 1,
            ..subject
        },
        Subject {
            user: User([user[0], user[1], user[2] + 1]),
            ..subject
        },
        Subject {
            model: model + 1,
            ..subject
        },
        Subject {
            route: route + 1,
            ..subject
        },
        Subject {
            address: address + (1 << 32),
            ..subject
        },
    ]
}

#[test]
fn whatever_a_policy_is_counted_per_tells_its_keys_apart_and_nothing_else_does() {
    let one = Subject {
        caller: 10,
        team: 5,
        model: 7,
        route: 3,
        address: 0x2001_0db8_0000_0001,
        user: ALICE,
    };
    for bits in 0..64 {
        let per = per_kinds(bits);
        for (kind, other) in neighbours(one).into_iter().enumerate() {
            let mut run = Run::new(&[policy("p", per, two_per_hour())]);
            while matches!(run.ask(one, ONE), Outcome::Admitted) {}
            // Who is of another team is another caller as well.
            let is_other = bits & (1 << kind) != 0 || (kind == 1 && per.caller);
            assert_eq!(
                matches!(run.ask(other, ONE), Outcome::Admitted),
                is_other,
                "{per:?} {other:?}"
            );
        }
    }
}

#[test]
fn parts_of_a_key_are_not_confused_with_each_other() {
    let per = Per {
        user: true,
        ..per_kinds(0b11_1111)
    };
    let base = Subject {
        user: ALICE,
        ..Subject::default()
    };
    let subjects = [
        Subject { caller: 1, ..base },
        Subject { model: 1, ..base },
        Subject { route: 1, ..base },
        Subject { address: 1, ..base },
        Subject {
            user: User([2, 1, 3]),
            ..base
        },
        Subject {
            user: User([0, 1, 0]),
            ..base
        },
        Subject {
            user: User([1, 0, 0]),
            ..base
        },
        Subject {
            user: User([0, 0, 1]),
            ..base
        },
        Subject {
            address: 1 << 32,
            ..base
        },
        Subject {
            caller: u32::MAX,
            ..base
        },
        Subject {
            address: u64::MAX,
            ..base
        },
    ];
    let mut run = Run::new(&[policy("p", per, two_per_hour())]);
    for subject in subjects {
        let admitted = (0..3)
            .filter(|_| matches!(run.ask(subject, ONE), Outcome::Admitted))
            .count();
        assert_eq!(admitted, 2, "{subject:?}");
    }
}

#[test]
fn pairs_of_ids_are_not_confused_with_each_other() {
    for bits in [0b00_1001, 0b01_0001, 0b01_1000, 0b00_1010, 0b01_0010] {
        let mut run = Run::new(&[policy("p", per_kinds(bits), two_per_hour())]);
        let ids = [0, 1, 2, 1_023, 1_024, u32::MAX];
        for first in ids {
            for second in ids {
                let caller_or_model = if bits & 0b11 == 0 { 0 } else { first };
                let subject = Subject {
                    caller: caller_or_model,
                    team: caller_or_model,
                    model: if bits == 0b01_1000 { first } else { second },
                    route: second,
                    ..Subject::default()
                };
                let admitted = (0..3)
                    .filter(|_| matches!(run.ask(subject, ONE), Outcome::Admitted))
                    .count();
                assert_eq!(admitted, 2, "{bits:b} {subject:?}");
            }
        }
    }
}

#[test]
fn a_policy_per_user_does_not_apply_to_requests_that_name_none() {
    let per = Per {
        user: true,
        ..Per::default()
    };
    let mut run = Run::new(&[policy("p", per, two_per_hour())]);
    let alice = Subject {
        user: ALICE,
        ..Subject::default()
    };
    let admitted = |run: &mut Run, subject| {
        let asks = (0..5).filter(|_| matches!(run.ask(subject, ONE), Outcome::Admitted));
        asks.count()
    };
    assert_eq!(admitted(&mut run, alice), 2);
    assert_eq!(admitted(&mut run, Subject::default()), 5);
    assert_eq!(run.levels(Subject::default()), []);
}

#[test]
fn a_policy_may_match_one_user_and_one_route() {
    let matches = Match {
        user: Some(ALICE),
        route: Some(3),
        ..Match::default()
    };
    let matching = Policy {
        matches,
        ..policy("p", Per::default(), two_per_hour())
    };
    for (user, route, expected) in [
        (ALICE, 3, 2),
        (ALICE, 4, 5),
        (User([2, 1, 3]), 3, 5),
        (User::UNKNOWN, 3, 5),
    ] {
        let mut run = Run::new(std::slice::from_ref(&matching));
        let subject = Subject {
            user,
            route,
            ..Subject::default()
        };
        let asks = (0..5).filter(|_| matches!(run.ask(subject, ONE), Outcome::Admitted));
        assert_eq!(asks.count(), expected, "{subject:?}");
    }
}
