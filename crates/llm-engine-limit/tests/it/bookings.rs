//! Times that are promised to refused requests: each has its own, and who comes at it is admitted.

use std::time::Duration;

use crate::shapes::{ANYONE, only};
use crate::trace::{Outcome, Run, before};
use llm_engine_limit::{Cost, Fingerprint, NotNow, Quota, Refusal, Subject, Time, Unit};

pub(crate) const NANO: Duration = Duration::from_nanos(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const GRACE: Duration = Duration::from_secs(3);
pub(crate) const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

pub(crate) fn tokens(output_tokens: u64) -> Cost {
    Cost {
        output_tokens,
        ..Cost::NOTHING
    }
}

/// A request that can be told apart from all others.
pub(crate) fn unique(digest: u64) -> Fingerprint {
    Fingerprint {
        digest,
        is_unique: true,
    }
}

pub(crate) fn caller(caller: u32) -> Subject {
    Subject { caller, ..ANYONE }
}

/// One a second, one at once, for all; and that one is taken.
pub(crate) fn one_a_second() -> Run {
    let mut run = Run::new(&only(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap()));
    assert!(matches!(run.ask(caller(1_000), ONE), Outcome::Admitted));
    run
}

pub(crate) fn at(run: &mut Run, millis: u64) {
    run.clock = Time::after_epoch(Duration::from_millis(millis));
}

pub(crate) fn refusal(outcome: Outcome) -> NotNow {
    match outcome {
        Outcome::Refused(.., Refusal::NotNow(refusal)) => refusal,
        outcome => panic!("not refused: {outcome:?}"),
    }
}

/// The time that was promised, in milliseconds.
pub(crate) fn promised(run: &mut Run, caller: Subject, fingerprint: Fingerprint) -> u64 {
    let refusal = refusal(run.ask_or_book(caller, ONE, fingerprint));
    assert!(refusal.booked && refusal.exact, "{refusal:?}");
    let due = run.clock + refusal.wait;
    assert!(due.as_nanos().is_multiple_of(1_000_000), "{due:?}");
    due.as_nanos() / 1_000_000
}

#[track_caller]
pub(crate) fn assert_admitted(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Admitted), "{outcome:?}");
}

#[test]
fn refused_callers_get_one_moment_after_the_other() {
    let mut run = one_a_second();
    at(&mut run, 500);
    let times = [1, 2, 3, 4].map(|id| promised(&mut run, caller(id), unique(0)));
    assert_eq!(times, [1_000, 2_000, 3_000, 4_000]);
    for (id, time) in (1..).zip(times) {
        at(&mut run, time);
        assert_admitted(&run.ask_or_book(caller(id), ONE, unique(0)));
    }
}

#[test]
fn who_comes_at_its_time_is_admitted_though_another_came_just_before() {
    for early in [NANO, Duration::ZERO] {
        let mut run = one_a_second();
        assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
        run.clock = before(Time::after_epoch(SECOND), early);
        let other = refusal(run.ask(caller(2), ONE));
        assert!(!other.booked && !other.exact && other.wait >= SECOND, "{other:?}");
        assert_eq!(promised(&mut run, caller(3), unique(0)), 2_000);
        assert_eq!(promised(&mut run, caller(3), unique(0)), 2_000);
        at(&mut run, 1_000);
        assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
    }
}

#[test]
fn a_booking_is_used_once() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    at(&mut run, 1_000);
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
    assert_eq!(promised(&mut run, caller(1), unique(0)), 2_000);
    at(&mut run, 1_500);
    // Its first time is no longer kept for it: the second one counts.
    assert_eq!(promised(&mut run, caller(1), unique(0)), 2_000);
}

#[test]
fn a_booking_is_kept_for_three_seconds_and_not_a_nanosecond_longer() {
    for late in [GRACE, GRACE + NANO] {
        let mut run = one_a_second();
        assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
        run.clock = Time::after_epoch(SECOND) + late;
        assert_admitted(&run.ask(caller(2), ONE));
        let own = run.ask_or_book(caller(1), ONE, unique(0));
        assert_eq!(matches!(own, Outcome::Admitted), late <= GRACE, "{own:?}");
    }
}

#[test]
fn who_comes_early_takes_the_place_of_one_that_is_late_and_gives_its_own() {
    let mut run = one_a_second();
    let times = [1, 2, 3].map(|id| promised(&mut run, caller(id), unique(0)));
    assert_eq!(times, [1_000, 2_000, 3_000]);
    at(&mut run, 1_500);
    assert!(matches!(run.ask(caller(4), ONE), Outcome::Refused(..)));
    assert_admitted(&run.ask_or_book(caller(3), ONE, unique(0)));
    at(&mut run, 1_800);
    assert_eq!(promised(&mut run, caller(1), unique(0)), 3_000);
    for (millis, id) in [(2_000, 2), (3_000, 1)] {
        at(&mut run, millis);
        assert!(matches!(run.ask(caller(4), ONE), Outcome::Refused(..)));
        assert_admitted(&run.ask_or_book(caller(id), ONE, unique(0)));
    }
}

#[test]
fn who_comes_early_while_nobody_is_overdue_is_told_its_time_again() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    assert_eq!(promised(&mut run, caller(2), unique(0)), 2_000);
    for millis in [100, 400, 999] {
        at(&mut run, millis);
        assert_eq!(promised(&mut run, caller(2), unique(0)), 2_000);
        assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    }
}

#[test]
fn times_that_were_given_up_make_nobody_wait() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    for _ in 0..3 {
        for digest in 0..20 {
            promised(&mut run, caller(2), unique(digest));
        }
        for digest in (0..20).rev() {
            run.limiter.cancel_booking(run.clock, caller(2), unique(digest));
        }
    }
    assert_eq!(promised(&mut run, caller(3), unique(0)), 2_000);
}

#[test]
fn a_time_that_could_not_be_kept_is_booked_anew_before_those_who_come_later() {
    let quota = Quota::with_burst(60, MINUTE, 10).unwrap();
    let mut run = Run::new(&only(Unit::OutputTokens, quota));
    let ten = Cost {
        output_tokens: 10,
        ..Cost::NOTHING
    };
    let one = Cost {
        output_tokens: 1,
        ..Cost::NOTHING
    };
    assert_admitted(&run.ask(caller(0), ten));
    let due = run.clock + refusal(run.ask_or_book(caller(1), one, unique(0))).wait;
    assert_eq!(due, Time::after_epoch(SECOND));
    let later = run.clock + refusal(run.ask_or_book(caller(2), one, unique(0))).wait;
    assert_eq!(later, Time::after_epoch(2 * SECOND));
    // The one that runs needs 20 more than it had reserved.
    run.settle(
        0,
        Cost {
            output_tokens: 30,
            ..Cost::NOTHING
        },
    );
    run.clock = due;
    let anew = refusal(run.ask_or_book(caller(1), one, unique(0)));
    assert!(anew.booked, "{anew:?}");
    let next = refusal(run.ask_or_book(caller(3), one, unique(0)));
    assert!(anew.wait < next.wait, "{anew:?} {next:?}");
    run.clock = due + anew.wait;
    assert_admitted(&run.ask_or_book(caller(1), one, unique(0)));
}

#[test]
fn waits_up_to_a_minute_are_booked_and_longer_ones_not() {
    for (burst, is_booked) in [(60, true), (61, false)] {
        let quota = Quota::with_burst(60, MINUTE, burst).unwrap();
        let mut run = Run::new(&only(Unit::Requests, quota));
        let all = Cost {
            requests: burst,
            ..Cost::NOTHING
        };
        assert_admitted(&run.ask(caller(0), all));
        let refusal = refusal(run.ask_or_book(caller(1), all, unique(0)));
        assert_eq!(refusal.wait, SECOND * u32::try_from(burst).unwrap());
        assert_eq!((refusal.exact, refusal.booked), (true, is_booked));
    }
}

#[test]
fn a_time_is_kept_for_its_caller_only() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    at(&mut run, 1_000);
    assert_eq!(promised(&mut run, caller(2), unique(0)), 2_000);
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
}

#[test]
fn a_cancelled_booking_leaves_its_moment_to_others() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    run.limiter.cancel_booking(run.clock, caller(2), unique(0));
    run.limiter.cancel_booking(run.clock, caller(1), unique(1));
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    run.limiter.cancel_booking(run.clock, caller(1), unique(0));
    at(&mut run, 1_000);
    assert_admitted(&run.ask(caller(2), ONE));
}

#[test]
fn once_all_bookings_are_cancelled_the_next_wait_is_as_if_there_had_been_none() {
    let mut run = one_a_second();
    for id in 1..=10 {
        assert_eq!(promised(&mut run, caller(id), unique(0)), u64::from(id) * 1_000);
    }
    for id in 1..=10 {
        run.limiter.cancel_booking(run.clock, caller(id), unique(0));
    }
    let next = refusal(run.ask(caller(11), ONE));
    assert_eq!((next.wait, next.exact), (SECOND, true));
    assert_eq!(promised(&mut run, caller(12), unique(0)), 1_000);
}

#[test]
fn at_the_end_of_time_bookings_end_as_well() {
    let mut run = Run::new(&only(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap()));
    run.clock = before(Time::END, 10 * SECOND);
    assert_admitted(&run.ask(ANYONE, ONE));
    for id in 0..30 {
        run.ask_or_book(caller(id), ONE, unique(0));
    }
    for id in 0..30 {
        run.clock = run.clock + SECOND / 2;
        run.ask_or_book(caller(id), ONE, unique(0));
    }
}
