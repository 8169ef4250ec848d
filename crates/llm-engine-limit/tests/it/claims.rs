//! Requests that must wait for longer than times are booked: they get through among many small ones.

use std::time::Duration;

use crate::bookings::{ONE, caller, refusal, unique};
use crate::shapes::only;
use crate::trace::{Outcome, Run};
use llm_engine_limit::{Cost, Limiter, Quota, Refusal, Time, Unit};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn many(requests: u64) -> Cost {
    Cost {
        requests,
        ..Cost::NOTHING
    }
}

/// One a second for all, a thousand at once; and they are taken.
fn empty() -> Run {
    let mut run = Run::new(&only(
        Unit::Requests,
        Quota::with_burst(60, MINUTE, 1_000).unwrap(),
    ));
    assert!(matches!(run.ask(caller(1_000), many(1_000)), Outcome::Admitted));
    run
}

fn at(run: &mut Run, seconds: u64) {
    run.clock = Time::after_epoch(SECOND * u32::try_from(seconds).unwrap());
}

/// What would be admitted of one more than so many, and of so many.
fn takes_exactly(run: &mut Run, requests: u64) {
    let more = run.ask(caller(2), many(requests + 1));
    assert!(matches!(more, Outcome::Refused(..)), "{more:?}");
    let outcome = run.ask(caller(2), many(requests));
    assert!(matches!(outcome, Outcome::Admitted), "{outcome:?}");
}

#[test]
fn half_of_what_refills_is_left_for_one_that_must_wait_for_long_until_that_is_enough() {
    let mut run = empty();
    let large = refusal(run.ask_or_book(caller(1), many(100), unique(1)));
    assert_eq!(
        (large.wait, large.exact, large.booked),
        (SECOND * 100, true, false)
    );
    at(&mut run, 40);
    takes_exactly(&mut run, 20);
    at(&mut run, 100);
    takes_exactly(&mut run, 30);
    // It has half of it; for the other half it waits, and has a booking now.
    let large = refusal(run.ask_or_book(caller(1), many(100), unique(1)));
    assert_eq!((large.wait, large.exact, large.booked), (SECOND * 50, true, true));
    at(&mut run, 150);
    assert!(matches!(
        run.ask_or_book(caller(1), many(100), unique(1)),
        Outcome::Admitted
    ));
    // Nothing is left for anybody any more.
    at(&mut run, 160);
    takes_exactly(&mut run, 10);
}

#[test]
fn whoever_does_not_come_again_when_it_should_or_for_ten_minutes_has_no_claim_any_more() {
    for (ask, last) in [(100, 103), (300, 303), (1_000, 603)] {
        let mut run = empty();
        let large = refusal(run.ask_or_book(caller(1), many(ask), unique(1)));
        assert_eq!(large.wait, SECOND * u32::try_from(ask).unwrap());
        at(&mut run, last);
        let all = run.ask(caller(2), many(last));
        assert!(matches!(all, Outcome::Refused(..)), "something is left for it");
        run.clock = run.clock + Duration::from_nanos(1);
        let all = run.ask(caller(2), many(last));
        assert!(matches!(all, Outcome::Admitted), "{all:?}");
    }
}

#[test]
fn those_who_wait_for_long_have_their_turns_in_the_order_in_which_they_came() {
    let mut run = empty();
    for id in [1, 2] {
        refusal(run.ask_or_book(caller(id), many(100), unique(1)));
    }
    at(&mut run, 99);
    let second = refusal(run.ask_or_book(caller(2), many(100), unique(1)));
    assert!(!second.exact, "the first one's claim is in its way: {second:?}");
    at(&mut run, 100);
    assert!(matches!(
        run.ask_or_book(caller(1), many(100), unique(1)),
        Outcome::Admitted
    ));
    at(&mut run, 160);
    // Since the first one has gone, half is left for the second.
    takes_exactly(&mut run, 30);
}

#[test]
fn a_caller_has_one_claim_at_a_time_where_others_share_the_quota() {
    let mut run = empty();
    for id in 0..10 {
        let large = refusal(run.ask_or_book(caller(1), many(100), unique(id)));
        assert!(!large.booked);
    }
    assert!(matches!(
        run.ask_or_book(caller(2), many(100), unique(0)),
        Outcome::Refused(..)
    ));
    run.limiter.cancel_booking(run.clock, caller(1), unique(0));
    at(&mut run, 20);
    // Of the nine others none was in the line: the next is the other caller, and has half of it since the first has gone.
    takes_exactly(&mut run, 10);
    run.limiter.cancel_booking(run.clock, caller(2), unique(0));
    takes_exactly(&mut run, 10);
}

/// How many seconds a request for three minutes' worth waits while callers of small ones, who come when they are told to or
/// do not come again, ask for `load` times what there is; and how much of the quota is used meanwhile.
fn waits_among_small_ones(load: f64, obedient: f64, seed: u8) -> (f64, f64) {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut unit = move || f64::from(random.next_u32()) / f64::from(u32::MAX);
    let quota = Quota::with_burst(60, MINUTE, 300).unwrap();
    let mut limiter = Limiter::new(only(Unit::Requests, quota));
    let mut events = std::collections::BTreeSet::new();
    let mut at = 0.0;
    for id in 0..u64::from(u16::MAX) {
        at -= (1.0 - unit()).max(1e-9).ln() / load;
        events.insert((Time::after_epoch(Duration::from_secs_f64(at)), id + 1));
    }
    // By then the bucket is empty.
    let begin = Time::after_epoch(MINUTE * 60);
    events.insert((begin, 0));
    let mut used = 0;
    while let Some((now, id)) = events.pop_first() {
        let (cost, subject) = if id == 0 {
            (many(180), caller(0))
        } else {
            (ONE, caller(u32::try_from(1 + id % 50).unwrap()))
        };
        match limiter.admit_or_book(now, subject, cost, unique(id)) {
            Ok(reservation) => {
                used += if now >= begin { cost.requests } else { 0 };
                limiter.settle(now, reservation, cost);
                if id == 0 {
                    let waited = now.since(begin).as_secs_f64();
                    return (waited, used as f64 / waited);
                }
            }
            Err(Refusal::NotNow(refusal)) if id == 0 || unit() < obedient => {
                let late = Duration::from_secs_f64(unit() * 0.02);
                events.insert((now + refusal.wait + late, id));
            }
            Err(_) => {}
        }
        if now > begin + MINUTE * 60 {
            return (f64::INFINITY, 0.0);
        }
    }
    unreachable!("the small ones come for longer than an hour")
}

#[test]
fn a_large_request_waits_at_most_twice_as_long_as_alone_whatever_others_ask_for() {
    for load in [1.2, 2.0, 5.0] {
        for obedient in [1.0, 0.5, 0.0] {
            for seed in 0..5 {
                let (waited, used) = waits_among_small_ones(load, obedient, seed);
                println!(
                    "load {load} obedient {obedient}: {waited:.1} s, {:.1} % used",
                    used * 100.0
                );
                assert!(
                    waited <= 2.0 * 180.0 + 5.0,
                    "load {load} obedient {obedient}: {waited}"
                );
                assert!(used >= 0.97, "load {load} obedient {obedient}: {used}");
            }
        }
    }
}
