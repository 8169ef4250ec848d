//! Budgets per calendar window: nothing comes back within a window, and everything at its turn.

use std::time::Duration;

use crate::shapes::{ANYONE, only_budget};
use crate::trace::before;
use llm_engine_limit::{
    Budget, Calendar, Cost, Counted, Limiter, NotNow, Period, QuotaError, Refusal, Time, Unit,
};

const NANO: Duration = Duration::from_nanos(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const DOLLAR: u64 = 1_000_000_000;

fn usd(nano_usd: u64) -> Cost {
    Cost {
        requests: 1,
        nano_usd,
        ..Cost::NOTHING
    }
}

fn at(hours: u32) -> Time {
    Time::after_epoch(HOUR * hours)
}

/// Days that begin at these hours; the one that runs at first has the number 100.
fn days(turns: &[u32]) -> Calendar {
    Calendar::new(
        Period::Day,
        "Europe/Berlin",
        100,
        turns.iter().map(|hour| at(*hour)).collect(),
    )
}

/// Twenty dollars per such day.
fn twenty_dollars(turns: &[u32]) -> Limiter {
    Limiter::new(only_budget(
        Unit::Usd,
        Budget::new(20 * DOLLAR, days(turns)).unwrap(),
    ))
}

fn take(limiter: &mut Limiter, now: Time, dollars: u64) {
    let reservation = limiter.admit(now, ANYONE, usd(dollars * DOLLAR)).unwrap();
    limiter.settle(now, reservation, usd(dollars * DOLLAR));
}

fn left(limiter: &Limiter, now: Time) -> u64 {
    limiter.levels(now, ANYONE)[0].remaining
}

fn refused(limiter: &mut Limiter, now: Time, cost: Cost) -> NotNow {
    match limiter.admit(now, ANYONE, cost) {
        Err(Refusal::NotNow(refusal)) => refusal,
        answer => panic!("not refused: {answer:?}"),
    }
}

#[test]
fn everything_is_back_at_the_turn_and_nothing_a_nanosecond_before() {
    let mut limiter = twenty_dollars(&[10, 34]);
    take(&mut limiter, at(1), 20);
    for now in [at(1), at(9), before(at(10), NANO)] {
        let refusal = refused(&mut limiter, now, usd(1));
        assert_eq!(
            (refusal.wait, refusal.exact, refusal.booked),
            (at(10).since(now), true, false)
        );
        assert_eq!(left(&limiter, now), 0);
        assert_eq!(limiter.levels(now, ANYONE)[0].full_in, at(10).since(now));
    }
    assert_eq!(
        left(&limiter, at(10)),
        20 * DOLLAR,
        "also where nobody has asked since the turn"
    );
    assert_eq!(limiter.levels(at(10), ANYONE)[0].full_in, Duration::ZERO);
    take(&mut limiter, at(10), 20);
    assert_eq!(refused(&mut limiter, at(10), usd(1)).wait, DAY);
}

#[test]
fn a_refusal_names_the_budget() {
    let mut limiter = twenty_dollars(&[10]);
    take(&mut limiter, at(1), 15);
    let refusal = refused(&mut limiter, at(4), usd(6 * DOLLAR));
    let counted = Counted::PerPeriod {
        unit: Unit::Usd,
        period: Period::Day,
    };
    let [refused] = &refusal.refused[..] else {
        panic!("{refusal:?}")
    };
    assert_eq!((refused.counted, refused.limit), (counted, 20 * DOLLAR));
    assert_eq!((refused.asked, refused.remaining), (6 * DOLLAR, 5 * DOLLAR));
    assert_eq!(counted.amount(20 * DOLLAR), "$20.00 per calendar day");
    assert_eq!(counted.units(1_500_000), "$0.0015");
    let never = limiter.admit(at(4), ANYONE, usd(20 * DOLLAR + 1)).unwrap_err();
    assert!(matches!(never, Refusal::NeverFits(_)), "{never:?}");
}

#[test]
fn what_is_given_back_after_the_turn_belongs_to_the_old_window() {
    let mut limiter = twenty_dollars(&[10, 34]);
    let running = limiter.admit(at(9), ANYONE, usd(15 * DOLLAR)).unwrap();
    take(&mut limiter, at(10), 3);
    limiter.settle(at(11), running, usd(DOLLAR));
    assert_eq!(left(&limiter, at(11)), 17 * DOLLAR);
    // What it used beyond its reservation is charged when that is known.
    let mut limiter = twenty_dollars(&[10, 34]);
    let running = limiter.admit(at(9), ANYONE, usd(15 * DOLLAR)).unwrap();
    limiter.settle(at(11), running, usd(17 * DOLLAR));
    assert_eq!(left(&limiter, at(11)), 18 * DOLLAR);
}

#[test]
fn what_is_given_back_within_the_window_can_be_spent_again() {
    let mut limiter = twenty_dollars(&[10]);
    let one = limiter.admit(at(1), ANYONE, usd(12 * DOLLAR)).unwrap();
    let other = limiter.admit(at(1), ANYONE, usd(8 * DOLLAR)).unwrap();
    limiter.settle(at(8), one, usd(2 * DOLLAR));
    limiter.settle(at(9), other, Cost::NOTHING);
    assert_eq!(left(&limiter, at(9)), 18 * DOLLAR);
}

#[test]
fn a_debt_ends_with_its_window() {
    let mut limiter = twenty_dollars(&[10]);
    let reservation = limiter.admit(at(1), ANYONE, usd(20 * DOLLAR)).unwrap();
    limiter.settle(at(2), reservation, usd(100 * DOLLAR));
    assert_eq!(refused(&mut limiter, at(2), usd(1)).wait, HOUR * 8);
    assert_eq!(left(&limiter, at(10)), 20 * DOLLAR);
}

#[test]
fn a_clock_that_goes_back_over_the_turn_gives_nothing() {
    let mut limiter = twenty_dollars(&[10, 34]);
    take(&mut limiter, at(10), 20);
    let refusal = refused(&mut limiter, at(9), usd(1));
    assert_eq!(
        refusal.wait,
        HOUR * 25,
        "it counts from the instant that was given"
    );
    assert_eq!(refused(&mut limiter, at(10), usd(1)).wait, DAY);
}

#[test]
fn several_turns_that_nobody_saw_are_one() {
    let mut limiter = twenty_dollars(&[10, 34, 58, 82]);
    take(&mut limiter, at(1), 20);
    take(&mut limiter, at(70), 20);
    assert_eq!(refused(&mut limiter, at(71), usd(1)).wait, HOUR * 11);
}

#[test]
fn a_turn_that_is_corrected_before_it_has_come_comes_then() {
    for corrected in [8, 12] {
        let mut limiter = twenty_dollars(&[10]);
        take(&mut limiter, at(1), 20);
        limiter.follow(at(2), &days(&[corrected]));
        assert_eq!(refused(&mut limiter, at(3), usd(1)).wait, HOUR * (corrected - 3));
        assert!(
            limiter
                .admit(before(at(corrected), NANO), ANYONE, usd(1))
                .is_err()
        );
        assert_eq!(left(&limiter, at(corrected)), 20 * DOLLAR);
    }
}

#[test]
fn a_turn_that_is_corrected_after_it_has_come_comes_once() {
    let mut limiter = twenty_dollars(&[10, 34]);
    take(&mut limiter, at(11), 20);
    // It is said to come only at noon: the window that it began goes on.
    limiter.follow(at(11), &days(&[12, 36]));
    for hours in [11, 12, 20, 35] {
        let refusal = refused(&mut limiter, at(hours), usd(1));
        assert!(refusal.wait > Duration::ZERO, "{refusal:?}");
    }
    assert_eq!(left(&limiter, at(36)), 20 * DOLLAR);
}

#[test]
fn a_correction_that_says_that_the_turn_was_earlier_turns_at_once() {
    let mut limiter = twenty_dollars(&[10]);
    take(&mut limiter, at(5), 20);
    limiter.follow(at(6), &days(&[4, 28]));
    assert_eq!(left(&limiter, at(6)), 20 * DOLLAR);
    take(&mut limiter, at(6), 20);
    assert_eq!(refused(&mut limiter, at(6), usd(1)).wait, HOUR * 22);
}

#[test]
fn another_calendar_is_not_followed() {
    let mut limiter = twenty_dollars(&[10]);
    take(&mut limiter, at(1), 20);
    let turns = || vec![at(2)];
    limiter.follow(at(1), &Calendar::new(Period::Day, "UTC", 100, turns()));
    limiter.follow(at(1), &Calendar::new(Period::Week, "Europe/Berlin", 100, turns()));
    assert_eq!(left(&limiter, at(3)), 0);
}

#[test]
fn without_a_known_turn_what_is_spent_is_spent_until_one_is_known() {
    let mut limiter = twenty_dollars(&[]);
    take(&mut limiter, at(1), 20);
    assert!(refused(&mut limiter, at(100_000), usd(1)).wait > DAY * 365);
    limiter.follow(at(100_000), &days(&[100_001]));
    assert_eq!(left(&limiter, at(100_001)), 20 * DOLLAR);
}

#[test]
fn a_debt_beyond_all_reason_ends_with_its_window() {
    let mut limiter = twenty_dollars(&[24, 48]);
    for _ in 0..3 {
        let Ok(reservation) = limiter.admit(at(1), ANYONE, usd(0)) else {
            panic!("nothing is always there")
        };
        limiter.settle(at(1), reservation, usd(u64::MAX));
    }
    assert_eq!(refused(&mut limiter, at(1), usd(1)).wait, HOUR * 23);
    assert_eq!(left(&limiter, at(24)), 20 * DOLLAR);
}

#[test]
fn limits_that_can_not_be_counted_are_refused() {
    assert_eq!(Budget::new(0, days(&[])), Err(QuotaError::ZeroLimit));
    assert!(Budget::new(Budget::MAX_LIMIT, days(&[])).is_ok());
    let error = Budget::new(Budget::MAX_LIMIT + 1, days(&[])).unwrap_err();
    assert_eq!(error, QuotaError::LargeBudget);
    assert!(error.to_string().contains(&Budget::MAX_LIMIT.to_string()));
}
