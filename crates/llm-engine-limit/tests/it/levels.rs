//! What the limiter says about its levels is what it then does.

use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, limits_of, only, quota_policies, subject};
use crate::trace::{Allow, Outcome, Run, Used, steps};
use llm_engine_limit::{Cost, Counted, Level, Quota, Refusal, Subject, Time, Unit};

const FORWARD: Allow = Allow {
    overruns: true,
    clock_back: false,
    bookings: false,
};

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn what_remains_can_be_taken_and_one_more_can_not(
        policies in any_policies(),
        steps in steps(FORWARD, 100),
        subject in subject(),
    ) {
        let mut run = Run::play(&policies, &steps);
        for level in run.levels(subject) {
            let Some(unit) = level.counted.unit() else { continue };
            prop_assert!(!refuses(&mut run, subject, &level, cost(unit, level.remaining)));
            prop_assert!(refuses(&mut run, subject, &level, cost(unit, level.remaining + 1)));
        }
    }

    #[test]
    fn a_bucket_is_full_when_it_said_that_it_would_be(
        policies in quota_policies(),
        steps in steps(FORWARD, 100),
        subject in subject(),
    ) {
        let mut run = Run::play(&policies, &steps);
        run.settle_all(Used::All);
        let now = run.clock;
        let fresh = Run::new(&policies).levels(subject);
        for (index, level) in run.levels(subject).iter().enumerate() {
            let burst = fresh[index].remaining;
            prop_assert_eq!(level.full_in.is_zero(), level.remaining == burst);
            if level.full_in.is_zero() || level.full_in >= Time::END.since(now) {
                continue;
            }
            let then = run.limiter.levels(now + level.full_in, subject).remove(index);
            prop_assert_eq!((then.remaining, then.full_in), (burst, Duration::ZERO));
            let just_before = now + (level.full_in - Duration::from_nanos(1));
            let earlier = run.limiter.levels(just_before, subject).remove(index);
            prop_assert_eq!(earlier.full_in, Duration::from_nanos(1));
            prop_assert!(earlier.remaining < burst);
        }
    }
}

fn cost(unit: Unit, units: u64) -> Cost {
    match unit {
        Unit::Requests => Cost {
            requests: units,
            ..Cost::NOTHING
        },
        Unit::InputTokens | Unit::Tokens => Cost {
            input_tokens: units,
            ..Cost::NOTHING
        },
        Unit::OutputTokens => Cost {
            output_tokens: units,
            ..Cost::NOTHING
        },
        Unit::Usd => Cost {
            nano_usd: units,
            ..Cost::NOTHING
        },
    }
}

/// Whether the quota of this level refuses the cost. If all admit it, it is released at once.
fn refuses(run: &mut Run, subject: Subject, level: &Level, cost: Cost) -> bool {
    let unit = level.counted.unit().expect("it counts an amount");
    match run.ask(subject, cost) {
        Outcome::Admitted => {
            run.settle(run.open.len() - 1, Cost::NOTHING);
            false
        }
        Outcome::Refused(.., Refusal::NotNow(refusal)) => {
            let is = |refused: &llm_engine_limit::Refused| {
                refused.policy == level.policy && refused.counted == level.counted
            };
            refusal.refused.iter().any(is)
        }
        // It is said about one quota only; whether about this one is seen from its burst.
        Outcome::Refused(.., Refusal::NeverFits(_)) => {
            let policy = run
                .policies
                .iter()
                .find(|policy| policy.name == level.policy)
                .expect("it has this name");
            let (_, limit) = limits_of(policy)
                .find(|(unit, limit)| limit.counted(*unit) == level.counted)
                .expect("it has this quota");
            unit.of(cost) > level.remaining
                && (unit.of(cost) > limit.burst() || level.remaining < limit.burst())
        }
        outcome => panic!("neither admitted nor refused: {outcome:?}"),
    }
}

#[test]
fn a_level_says_which_quota_it_is_and_how_it_stands() {
    let quota = Quota::with_burst(600, Duration::from_secs(60), 30).unwrap();
    let mut run = Run::new(&only(Unit::Requests, quota));
    let full = Level {
        policy: "only".into(),
        counted: Counted::PerWindow {
            unit: Unit::Requests,
            window: Duration::from_secs(60),
        },
        limit: 600,
        remaining: 30,
        full_in: Duration::ZERO,
    };
    assert_eq!(run.levels(ANYONE), std::slice::from_ref(&full));
    assert!(matches!(
        run.ask(ANYONE, cost(Unit::Requests, 12)),
        Outcome::Admitted
    ));
    assert_eq!(
        run.levels(ANYONE),
        [Level {
            remaining: 18,
            full_in: Duration::from_millis(1_200),
            ..full
        }]
    );
    // A quarter of the first request has refilled, which is nothing yet.
    run.clock = run.clock + Duration::from_millis(25);
    assert_eq!(
        run.levels(ANYONE),
        [Level {
            remaining: 18,
            full_in: Duration::from_millis(1_175),
            ..full
        }]
    );
    run.clock = run.clock + Duration::from_millis(75);
    assert_eq!(
        run.levels(ANYONE),
        [Level {
            remaining: 19,
            full_in: Duration::from_millis(1_100),
            ..full
        }]
    );
}

#[test]
fn a_bucket_in_debt_has_nothing_left_and_says_when_it_will_be_full() {
    let quota = Quota::new(60, Duration::from_secs(60)).unwrap();
    let mut run = Run::new(&only(Unit::OutputTokens, quota));
    assert!(matches!(
        run.ask(ANYONE, cost(Unit::OutputTokens, 60)),
        Outcome::Admitted
    ));
    run.settle_all(Used::PerMille([1_500; 4]));
    let level = run.levels(ANYONE).remove(0);
    assert_eq!((level.remaining, level.full_in), (0, Duration::from_secs(90)));
    let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask(ANYONE, cost(Unit::OutputTokens, 1)) else {
        panic!("30 are owed")
    };
    assert_eq!(refusal.wait, Duration::from_secs(31));
}

#[test]
fn a_quota_in_debt_does_not_stand_in_the_way_of_what_costs_nothing_of_it() {
    let quota = Quota::new(60, Duration::from_secs(60)).unwrap();
    let mut run = Run::new(&only(Unit::OutputTokens, quota));
    assert!(matches!(
        run.ask(ANYONE, cost(Unit::OutputTokens, 60)),
        Outcome::Admitted
    ));
    run.settle_all(Used::PerMille([1_500; 4]));
    assert!(matches!(
        run.ask(ANYONE, cost(Unit::InputTokens, 1_000)),
        Outcome::Admitted
    ));
}
