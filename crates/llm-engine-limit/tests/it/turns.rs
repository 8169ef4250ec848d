//! Who comes at its time has its turn, whatever went wrong before.

use std::time::Duration;

use crate::bookings::{MINUTE, ONE, assert_admitted, at, caller, one_a_second, promised, refusal, unique};
use crate::shapes::only;
use crate::trace::{Outcome, Run};
use llm_engine_limit::{Quota, Unit};

/// A strict quota has no room for those who are late: whoever comes after one waits for as long as that one was late. It is
/// told that it is the next, so that its server can keep it for that moment.
#[test]
fn on_a_strict_quota_one_that_is_late_makes_the_next_one_wait_for_as_long_and_no_longer() {
    let mut run = Run::new(&only(Unit::Requests, Quota::strict(61, MINUTE, 1).unwrap()));
    assert_admitted(&run.ask(caller(1_000), ONE));
    let times = [1, 2, 3].map(|id| promised(&mut run, caller(id), unique(0)));
    assert_eq!(times, [1_000, 2_000, 3_000]);
    at(&mut run, 1_020);
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
    for (id, comes) in [(2, 2_000), (3, 3_010)] {
        at(&mut run, comes);
        let next = refusal(run.ask_or_book(caller(id), ONE, unique(0)));
        assert!(next.is_next && next.booked && next.exact, "{next:?}");
        // What one is late by is not added to what another was late by.
        let then = 20 + u64::from(id) * 1_000;
        assert_eq!(next.wait, Duration::from_millis(then - comes));
        at(&mut run, then);
        assert_admitted(&run.ask_or_book(caller(id), ONE, unique(0)));
    }
}

#[test]
fn who_had_its_turn_and_gives_it_back_for_another_reason_has_another() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    at(&mut run, 1_000);
    let admitted = run
        .limiter
        .admit_or_book(run.clock, caller(1), ONE, unique(0))
        .unwrap();
    let after = Duration::from_secs(2);
    run.limiter.give_back(run.clock, admitted, unique(0), after);
    // Until then what it gave back is there for others.
    assert_admitted(&run.ask(caller(2), ONE));
    at(&mut run, 2_500);
    assert!(matches!(run.ask(caller(2), ONE), Outcome::Refused(..)));
    at(&mut run, 3_000);
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
    assert_eq!(promised(&mut run, caller(1), unique(0)), 4_000);
}

#[test]
fn who_had_no_turn_and_gives_it_back_has_none() {
    let mut run = Run::new(&only(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap()));
    let admitted = run
        .limiter
        .admit_or_book(run.clock, caller(1), ONE, unique(0))
        .unwrap();
    run.limiter
        .give_back(run.clock, admitted, unique(0), Duration::from_millis(500));
    at(&mut run, 499);
    assert_admitted(&run.ask(caller(2), ONE));
    let refused = refusal(run.ask_or_book(caller(1), ONE, unique(0)));
    assert!(!refused.is_next, "{refused:?}");
}
