//! A clock that goes back gives nobody anything.

use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, only, subjects};
use crate::trace::{Allow, Outcome, Run, steps};
use llm_engine_limit::{Cost, Level, Limiter, Quota, Time, Unit};

proptest! {
    #![proptest_config(config(192))]

    /// Beside a limiter whose clock stands still instead.
    #[test]
    fn a_clock_that_goes_back_is_one_that_stands_still(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, clock_back: true, ..Allow::default() }, 120),
    ) {
        let mut run = Run::new(&policies);
        let mut still = Run::new(&policies);
        for step in &steps {
            // The clock of the second run is not `Step`'s business: it is the latest of the first one.
            let outcome = run.step(step);
            still.clock = run.latest;
            if !matches!(outcome, Outcome::Nothing) {
                let same = still.step(step);
                prop_assert_eq!(kind(&outcome), kind(&same));
            }
            for subject in subjects() {
                let levels = [&run, &still].map(|run| run.limiter.levels(still.clock, subject));
                prop_assert_eq!(&levels[0], &levels[1]);
                let seen_from_behind = run.limiter.levels(run.clock.min(run.latest), subject);
                let remaining = |levels: &[Level]| levels.iter().map(|level| level.remaining).collect::<Vec<_>>();
                prop_assert_eq!(remaining(&seen_from_behind), remaining(&levels[0]));
            }
        }
    }
}

fn kind(outcome: &Outcome) -> std::mem::Discriminant<Outcome> {
    std::mem::discriminant(outcome)
}

#[test]
fn no_credit_for_the_same_second_twice() {
    let quota = Quota::with_burst(1, Duration::from_secs(1), 1).unwrap();
    let mut limiter = Limiter::new(only(Unit::Requests, quota));
    let one = Cost {
        requests: 1,
        ..Cost::NOTHING
    };
    let mut admitted = 0;
    for _ in 0..10 {
        for millis in [0, 500, 1_000] {
            let now = Time::after_epoch(Duration::from_millis(millis));
            if let Ok(reservation) = limiter.admit(now, ANYONE, one) {
                admitted += 1;
                limiter.settle(now, reservation, one);
            }
        }
    }
    assert_eq!(
        admitted, 2,
        "one from the burst and one from the second that has passed"
    );
}

#[test]
fn time_is_nanoseconds_up_to_its_end() {
    let second = Time::after_epoch(Duration::from_secs(1));
    assert_eq!(second, Time::from_nanos(1_000_000_000));
    assert_eq!(second.since(Time::ZERO), Duration::from_secs(1));
    assert_eq!(Time::ZERO.since(second), Duration::ZERO);
    assert_eq!(Time::ZERO + Duration::from_secs(1), second);
    assert_eq!(second + Duration::MAX, Time::END);
    assert_eq!(Time::after_epoch(Duration::MAX), Time::END);
    assert_eq!(Time::from_nanos(u64::MAX), Time::END);
    let years = Time::END.since(Time::ZERO).as_secs() / (365 * 86_400);
    assert_eq!(years, 36);
}
