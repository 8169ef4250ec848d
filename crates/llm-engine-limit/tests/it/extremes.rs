//! What can't be exact is refused when it is configured; what is accepted never overflows.

use std::time::Duration;

use proptest::prelude::*;

use crate::oracle::{Pool, refill_per_window};
use crate::shapes::{ANYONE, config, only, only_budget, policy};
use llm_engine_limit::{
    Budget, Calendar, Cost, Fingerprint, Limiter, Per, Period, Quota, QuotaError, Refusal, Time, Unit,
};

const MINUTE: Duration = Duration::from_secs(60);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

fn any_magnitude() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..=63_u32, any::<u64>()).prop_map(|(shift, bits)| bits >> shift),
        4 => (0..=19_u32, 1..=9_u64).prop_map(|(zeros, digit)| 10_u64.pow(zeros).saturating_mul(digit)),
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

fn any_window() -> impl Strategy<Value = Duration> {
    let exact = prop_oneof![
        any_magnitude().prop_map(Duration::from_nanos),
        any_magnitude().prop_map(Duration::from_millis),
        any_magnitude().prop_map(Duration::from_secs),
    ];
    prop_oneof![20 => exact, 1 => Just(Duration::MAX)]
}

/// Whatever anyone may write into a configuration.
fn any_result() -> impl Strategy<Value = Result<Quota, QuotaError>> {
    (any_magnitude(), any_window(), any_magnitude(), 0..3_u8).prop_map(|(limit, window, burst, kind)| {
        match kind {
            0 => Quota::new(limit, window),
            1 => Quota::with_burst(limit, window, burst),
            _ => Quota::strict(limit, window, burst),
        }
    })
}

fn accepted() -> impl Strategy<Value = Quota> {
    any_result().prop_filter_map("not accepted", Result::ok)
}

/// Units around the corners of what fits, and of what a number holds.
fn any_units(burst: u64) -> impl Strategy<Value = u64> {
    let corners = vec![
        0,
        1,
        burst / 2,
        burst - 1,
        burst,
        burst.saturating_add(1),
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![proptest::sample::select(corners), any_magnitude(), 0..=burst]
}

fn any_instant() -> impl Strategy<Value = Time> {
    let corners = vec![
        Time::ZERO,
        Time::from_nanos(1),
        Time::END,
        Time::from_nanos((1 << 60) - 1),
    ];
    prop_oneof![
        proptest::sample::select(corners),
        any_magnitude().prop_map(Time::from_nanos)
    ]
}

/// When, input and output tokens asked for, and those used.
type Call = (Time, [u64; 2], [u64; 2]);

fn quota_and_calls() -> impl Strategy<Value = (Quota, Vec<Call>)> {
    accepted().prop_flat_map(|quota| {
        let units = || [any_units(quota.burst()), any_units(quota.burst())];
        let calls = prop::collection::vec((any_instant(), units(), units()), 1..=30);
        (Just(quota), calls)
    })
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn every_configuration_is_accepted_or_refused_with_its_reason(quota in any_result()) {
        match quota {
            Ok(quota) => {
                prop_assert!(quota.tick() <= Duration::from_millis(1) && !quota.tick().is_zero());
                prop_assert!(quota.window().as_nanos().is_multiple_of(quota.tick().as_nanos()));
                prop_assert!(quota.burst() > 0 && quota.limit() > 0 && !quota.window().is_zero());
                prop_assert!(!quota.is_strict() || quota.burst() < quota.limit());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn nothing_overflows_under_any_accepted_quota((quota, calls) in quota_and_calls()) {
        for unit in [Unit::OutputTokens, Unit::Tokens] {
            let mut limiter = Limiter::new(only(unit, quota));
            let mut open = Vec::new();
            for (now, [input_tokens, output_tokens], usage) in &calls {
                let cost = Cost { requests: u64::MAX, input_tokens: *input_tokens, output_tokens: *output_tokens, ..Cost::NOTHING };
                match limiter.admit(*now, ANYONE, cost) {
                    Ok(reservation) => open.push((reservation, *usage)),
                    Err(Refusal::NotNow(refusal)) => prop_assert!(refusal.exact && !refusal.wait.is_zero()),
                    Err(Refusal::NeverFits(never)) => prop_assert!(never.asked > never.burst),
                }
                if open.len() > 3 {
                    let (reservation, [input_tokens, output_tokens]) = open.remove(1);
                    let usage = Cost { requests: u64::MAX, input_tokens, output_tokens, ..Cost::NOTHING };
                    limiter.settle(*now, reservation, usage);
                }
                prop_assert!(limiter.levels(*now, ANYONE)[0].remaining <= quota.burst());
            }
        }
    }

    /// With bookings, a reload to another quota, and a restart.
    #[test]
    fn nothing_overflows_among_bookings(
        (quota, calls) in quota_and_calls(),
        other in accepted(),
    ) {
        let slow = Quota::with_burst(60, MINUTE, 1).unwrap();
        let both = |quota| {
            let quotas = vec![(Unit::Requests, slow), (Unit::Tokens, quota)];
            let per_caller = Per { caller: true, ..Per::default() };
            vec![policy("both", per_caller, quotas.clone()), policy("for all", Per::default(), quotas)]
        };
        let mut limiter = Limiter::new(both(quota));
        let mut open = Vec::new();
        for (index, (now, [input_tokens, output_tokens], [input_used, output_used])) in calls.iter().enumerate() {
            let cost = Cost { requests: 1, input_tokens: *input_tokens, output_tokens: *output_tokens, ..Cost::NOTHING };
            for digest in 0..4 {
                let fingerprint = Fingerprint { digest, is_unique: true };
                match limiter.admit_or_book(*now, ANYONE, cost, fingerprint) {
                    Ok(reservation) => open.push(reservation),
                    Err(Refusal::NotNow(refusal)) => prop_assert!(!refusal.refused.is_empty()),
                    Err(Refusal::NeverFits(never)) => prop_assert!(never.asked > never.burst),
                }
            }
            if index == calls.len() / 2 {
                limiter.reload(*now, &both(other));
            }
            if open.len() > 3 {
                let usage = Cost { requests: 1, input_tokens: *input_used, output_tokens: *output_used, ..Cost::NOTHING };
                limiter.settle(*now, open.remove(1), usage);
            }
        }
        let saved = limiter.save(Time::END);
        let mut again = Limiter::new(both(quota));
        for saved in saved {
            again.restore(Time::END, &saved, Duration::MAX);
            again.restore(Time::END, &saved, Duration::ZERO);
        }
    }

    #[test]
    fn nothing_overflows_under_any_budget(
        limit in 1..=Budget::MAX_LIMIT,
        first in any::<u32>(),
        turns in prop::collection::vec(any_instant(), 0..=20),
        calls in prop::collection::vec((any_instant(), any_magnitude(), any_magnitude()), 1..=30),
    ) {
        let mut turns = turns;
        turns.sort_unstable();
        let calendar = Calendar::new(Period::Month, "UTC", first, turns);
        let mut limiter = Limiter::new(only_budget(Unit::Usd, Budget::new(limit, calendar.clone()).unwrap()));
        for (now, asked, used) in calls {
            let cost = |nano_usd| Cost { nano_usd, ..Cost::NOTHING };
            match limiter.admit(now, ANYONE, cost(asked)) {
                Ok(reservation) => limiter.settle(now, reservation, cost(used)),
                Err(Refusal::NotNow(refusal)) => prop_assert!(refusal.wait <= Time::END.since(Time::ZERO)),
                Err(Refusal::NeverFits(never)) => prop_assert!(never.asked > limit),
            }
            prop_assert!(limiter.levels(now, ANYONE)[0].remaining <= limit);
            limiter.follow(now, &calendar);
        }
    }

    /// Half of the burst, then one unit more than there is: the wait is that of exact fractions.
    #[test]
    fn every_accepted_quota_is_exact(quota in accepted(), start in any_magnitude(), share in 0..=1_000_u64) {
        // The exact fractions of the oracle are 128 bits wide.
        prop_assume!(quota.burst() < 1 << 60 && refill_per_window(&quota) < 1 << 60);
        let mut limiter = Limiter::new(only(Unit::OutputTokens, quota));
        let mut pool = Pool::full(&quota);
        let now = Time::from_nanos(start % (1 << 59));
        let taken = u64::try_from(u128::from(quota.burst()) * u128::from(share) / 1_000).unwrap();
        let some = Cost { output_tokens: taken, ..Cost::NOTHING };
        let reservation = limiter.admit(now, ANYONE, some).unwrap();
        prop_assert!(pool.take(now.as_nanos(), taken));
        limiter.settle(now, reservation, some);
        let level = limiter.levels(now, ANYONE).remove(0);
        prop_assert_eq!(level.remaining, pool.remaining(now.as_nanos()));
        let whole = Cost { output_tokens: quota.burst(), ..Cost::NOTHING };
        let full_at = pool.full_at(now.as_nanos());
        if taken > 0 {
            let Err(Refusal::NotNow(refusal)) = limiter.admit(now, ANYONE, whole) else {
                panic!("{taken} of {} are taken", quota.burst())
            };
            // Beyond the end of time, centuries may be cut off.
            let said = u128::from(now.as_nanos()) + refusal.wait.as_nanos();
            let end = u128::from(Time::END.as_nanos());
            prop_assert!(said == full_at || (end < said && said < full_at), "{said} is not {full_at}");
            prop_assert_eq!(refusal.wait, level.full_in);
        }
        if full_at < u128::from(Time::END.as_nanos()) {
            let full_at = Time::from_nanos(u64::try_from(full_at).unwrap());
            prop_assert!(limiter.admit(full_at, ANYONE, whole).is_ok());
        }
    }
}

#[test]
fn nothing_is_a_quota_that_admits_nothing() {
    assert_eq!(Quota::new(0, MINUTE), Err(QuotaError::ZeroLimit));
    assert_eq!(Quota::with_burst(0, MINUTE, 1), Err(QuotaError::ZeroLimit));
    assert_eq!(Quota::strict(0, MINUTE, 0), Err(QuotaError::ZeroLimit));
    assert_eq!(Quota::new(1, Duration::ZERO), Err(QuotaError::ZeroWindow));
    assert_eq!(Quota::with_burst(1, MINUTE, 0), Err(QuotaError::ZeroBurst));
    assert_eq!(Quota::strict(1, MINUTE, 0), Err(QuotaError::ZeroBurst));
    assert_eq!(
        Quota::strict(10, MINUTE, 10),
        Err(QuotaError::StrictBurst { burst: 10, limit: 10 })
    );
    assert_eq!(
        Quota::strict(10, MINUTE, 11),
        Err(QuotaError::StrictBurst { burst: 11, limit: 10 })
    );
}

#[test]
fn what_operators_write_is_exact() {
    for (limit, window, burst) in [
        (1_000_000_000, MINUTE, 1_000_000_000),
        (1_000_000_000, MINUTE, 6_000_000_000),
        (1_000_000_000_000, MONTH, 1_000_000_000),
        (1, MONTH, 10_000_000),
        (10_000_000, MONTH, 10_000_000),
        (999_983, MINUTE, 999_983),
        (7, Duration::from_secs(1), 1),
        (1, Duration::from_nanos(1), 1),
        (1_000_000, Duration::from_millis(1), 5),
        (100, Duration::from_secs(365 * 86_400), 100),
    ] {
        let quota = Quota::with_burst(limit, window, burst).unwrap();
        assert!(quota.tick() <= Duration::from_millis(1), "{quota:?}");
    }
}

#[test]
fn what_no_tick_counts_exactly_is_refused() {
    for (limit, window, burst) in [
        // A prime that no window of whole seconds shares a factor with, and too large to count the window by.
        (999_999_937, MINUTE, 1),
        (10_000_019, MONTH, 1),
        // More units times refill time than 62 bits hold, at a millisecond's resolution.
        (1, MONTH, u64::MAX),
        (1, MONTH, 2_000_000_000),
        (u64::MAX, MINUTE, 1),
        // Longer than u64 nanoseconds.
        (1, Duration::MAX, 1),
        // More than 128 bits hold.
        (u64::MAX - 2, Duration::from_nanos(u64::MAX), u64::MAX),
        // Its length in nanoseconds is prime, so only single nanoseconds divide it.
        (1_000, Duration::from_nanos(999_999_937), 1),
    ] {
        let refused = Quota::with_burst(limit, window, burst).unwrap_err();
        assert_eq!(
            refused,
            QuotaError::Inexact {
                amount: limit,
                window,
                burst
            }
        );
    }
}

#[test]
fn one_a_month_with_a_burst_of_ten_million_waits_a_month_to_the_millisecond() {
    let quota = Quota::with_burst(1, MONTH, 10_000_000).unwrap();
    let mut limiter = Limiter::new(only(Unit::OutputTokens, quota));
    let start = Time::after_epoch(Duration::from_secs(1_000));
    let whole = Cost {
        output_tokens: 10_000_000,
        ..Cost::NOTHING
    };
    let one = Cost {
        output_tokens: 1,
        ..Cost::NOTHING
    };
    let reservation = limiter.admit(start, ANYONE, whole).unwrap();
    let Err(Refusal::NotNow(refusal)) = limiter.admit(start, ANYONE, one) else {
        panic!("it is empty")
    };
    assert_eq!(refusal.wait, MONTH);
    assert!(
        limiter
            .admit(start + (MONTH - Duration::from_millis(1)), ANYONE, one)
            .is_err()
    );
    assert!(
        limiter
            .admit(start + (MONTH - Duration::from_nanos(1)), ANYONE, one)
            .is_err()
    );
    assert!(limiter.admit(start + MONTH, ANYONE, one).is_ok());
    limiter.settle(start + MONTH, reservation, whole);
}

#[test]
fn a_debt_beyond_all_numbers_is_never_paid_off() {
    let mut limiter = Limiter::new(only(
        Unit::OutputTokens,
        Quota::new(1_000_000_000, MINUTE).unwrap(),
    ));
    let one = Cost {
        output_tokens: 1,
        ..Cost::NOTHING
    };
    let all = Cost {
        output_tokens: u64::MAX,
        ..Cost::NOTHING
    };
    let open: Vec<_> = (0..3)
        .map(|_| limiter.admit(Time::ZERO, ANYONE, one).unwrap())
        .collect();
    for reservation in open {
        limiter.settle(Time::ZERO, reservation, all);
        assert_eq!(limiter.levels(Time::ZERO, ANYONE)[0].remaining, 0);
    }
    assert!(matches!(
        limiter.admit(Time::END, ANYONE, one),
        Err(Refusal::NotNow(_))
    ));
}

#[test]
fn buckets_do_not_refill_at_the_end_of_time() {
    let mut limiter = Limiter::new(only(
        Unit::Requests,
        Quota::new(2, Duration::from_nanos(1)).unwrap(),
    ));
    let one = Cost {
        requests: 1,
        ..Cost::NOTHING
    };
    let reservations: Vec<_> = (0..5)
        .map_while(|_| limiter.admit(Time::END, ANYONE, one).ok())
        .collect();
    assert_eq!(reservations.len(), 2);
    for reservation in reservations {
        limiter.settle(Time::END, reservation, one);
    }
    assert!(limiter.admit(Time::END, ANYONE, one).is_err());
}
