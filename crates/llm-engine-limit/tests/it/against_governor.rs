//! The same decisions as `governor`, a widely used limiter, where both can express the quota: a period that the number
//! of units divides, costs up to the burst, a clock that does not go back.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::FakeRelativeClock;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::shapes::{ANYONE, config, only};
use llm_engine_limit::{Cost, Limiter, Quota, Refusal, Time, Unit};

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn the_same_requests_are_admitted_and_the_same_waits_given(
        limit in 1..=2_000_u32,
        refill_nanos in prop_oneof![1..=20_u64, 1..=1_000_000_000_u64, Just(600_000_000)],
        burst in prop_oneof![1..=10_u32, 1..=4_000_u32],
        burst_is_limit in any::<bool>(),
        calls in vec((0..=40_u64, 0..=1_000_u32), 1..=200),
    ) {
        let burst = if burst_is_limit { limit } else { burst };
        let refill = Duration::from_nanos(refill_nanos);
        let quota = Quota::with_burst(u64::from(limit), refill * limit, u64::from(burst)).unwrap();
        let mut ours = Limiter::new(only(Unit::Requests, quota));
        let theirs_quota =
            governor::Quota::with_period(refill).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
        let clock = FakeRelativeClock::default();
        let theirs = RateLimiter::direct_with_clock(theirs_quota, clock.clone());
        let mut now = Time::ZERO;
        for (eighths, per_mille) in calls {
            let pause = Duration::from_nanos(refill_nanos * eighths / 8);
            clock.advance(pause);
            now = now + pause;
            let units = NonZeroU32::new(burst * per_mille / 1_000).unwrap_or(NonZeroU32::MIN);
            let cost = Cost { requests: u64::from(units.get()), ..Cost::NOTHING };
            let answer = ours.admit(now, ANYONE, cost);
            match (answer, theirs.check_n(units).unwrap()) {
                (Ok(reservation), Ok(())) => ours.settle(now, reservation, cost),
                (Err(Refusal::NotNow(refusal)), Err(not_until)) => {
                    prop_assert_eq!(refusal.wait, not_until.wait_time_from(governor::clock::Clock::now(&clock)));
                }
                (ours, theirs) => prop_assert!(false, "at {now:?}: ours {ours:?}, governor's {theirs:?}"),
            }
        }
    }

    #[test]
    fn both_say_never_to_more_than_the_burst(burst in 1..=4_000_u32, excess in 1..=10_u32) {
        let second = Duration::from_secs(1);
        let mut ours =
            Limiter::new(only(Unit::Requests, Quota::with_burst(1, second, u64::from(burst)).unwrap()));
        let theirs_quota =
            governor::Quota::with_period(second).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
        let theirs = RateLimiter::direct_with_clock(theirs_quota, FakeRelativeClock::default());
        let units = NonZeroU32::new(burst + excess).unwrap();
        prop_assert!(theirs.check_n(units).is_err());
        let cost = Cost { requests: u64::from(units.get()), ..Cost::NOTHING };
        prop_assert!(matches!(ours.admit(Time::ZERO, ANYONE, cost), Err(Refusal::NeverFits(_))));
    }
}
