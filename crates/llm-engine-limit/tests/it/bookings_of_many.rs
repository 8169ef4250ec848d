//! Bookings of many callers, and of many requests of one: each has its share, and equal requests are told apart.

use std::collections::HashSet;
use std::time::Duration;

use crate::bookings::{
    GRACE, MINUTE, NANO, ONE, SECOND, assert_admitted, at, caller, one_a_second, promised, refusal, tokens,
    unique,
};
use crate::shapes::{ANYONE, only, policy};
use crate::trace::{Outcome, Run};
use llm_engine_limit::{Fingerprint, Limiter, Per, Quota, Refusal, Subject, Time, Unit, User};

/// One of many equal requests.
fn equal(digest: u64) -> Fingerprint {
    Fingerprint {
        digest,
        is_unique: false,
    }
}

#[test]
fn two_users_of_one_caller_with_equal_requests_have_a_time_each() {
    let mut run = one_a_second();
    let of_user = |number| Subject {
        user: User([number, 0, 0]),
        ..caller(1)
    };
    let times = [1, 2].map(|user| promised(&mut run, of_user(user), equal(0)));
    assert_eq!(times, [1_000, 2_000]);
    at(&mut run, 1_000);
    assert!(matches!(
        run.ask_or_book(of_user(2), ONE, equal(0)),
        Outcome::Refused(..)
    ));
    assert_admitted(&run.ask_or_book(of_user(1), ONE, equal(0)));
    at(&mut run, 2_000);
    assert_admitted(&run.ask_or_book(of_user(2), ONE, equal(0)));
}

#[test]
fn one_that_wants_more_than_its_share_is_booked_all_the_same() {
    let mut run = Run::new(&only(Unit::OutputTokens, Quota::new(60_000, MINUTE).unwrap()));
    assert_admitted(&run.ask(caller(1_000), tokens(60_000)));
    for id in 0..9 {
        let refusal = refusal(run.ask_or_book(caller(id), tokens(1_000), unique(0)));
        assert!(refusal.booked);
    }
    let large = refusal(run.ask_or_book(caller(10), tokens(20_000), unique(0)));
    assert!(large.booked && large.wait == SECOND * 29, "{large:?}");
    let another = refusal(run.ask_or_book(caller(10), tokens(20_000), unique(1)));
    assert!(!another.booked, "{another:?}");
}

#[test]
fn of_many_equal_requests_that_ask_again_early_each_is_told_another_time() {
    let mut run = Run::new(&only(Unit::Requests, Quota::with_burst(600, MINUTE, 1).unwrap()));
    assert_admitted(&run.ask(ANYONE, ONE));
    let told = |run: &mut Run, count: usize| -> HashSet<Duration> {
        let refusals = (0..count).map(|_| refusal(run.ask_or_book(ANYONE, ONE, equal(0))));
        refusals
            .inspect(|refusal| assert!(refusal.booked))
            .map(|refusal| refusal.wait)
            .collect()
    };
    assert_eq!(told(&mut run, 300).len(), 300);
    at(&mut run, 350);
    // Those whose time has come are admitted.
    for _ in 0..3 {
        assert_admitted(&run.ask_or_book(ANYONE, ONE, equal(0)));
    }
    assert_eq!(told(&mut run, 297).len(), 297);
}

#[test]
fn the_bookings_of_one_caller_and_of_all_are_bounded() {
    let policies = [policy(
        "each",
        Per {
            caller: true,
            ..Per::default()
        },
        vec![(Unit::Requests, Quota::with_burst(30_000, MINUTE, 1).unwrap())],
    )];
    let mut limiter = Limiter::new(policies.to_vec());
    let mut booked = [0; 11];
    for (id, booked) in (0..).zip(&mut booked) {
        for digest in 0..=10_001 {
            match limiter.admit_or_book(Time::ZERO, caller(id), ONE, unique(digest)) {
                Ok(_) => {}
                Err(Refusal::NotNow(refusal)) => *booked += usize::from(refusal.booked),
                Err(Refusal::NeverFits(never)) => panic!("{never}"),
            }
        }
    }
    assert_eq!(
        booked,
        [
            10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 0
        ]
    );
}

#[test]
fn equal_requests_get_a_time_each_and_a_request_with_a_key_keeps_its_own() {
    let mut run = one_a_second();
    let times = [(); 3].map(|()| promised(&mut run, caller(1), equal(7)));
    assert_eq!(times, [1_000, 2_000, 3_000]);
    let keyed = [(); 3].map(|()| promised(&mut run, caller(1), unique(8)));
    assert_eq!(keyed, [4_000; 3]);
    for millis in [1_000, 2_000, 3_000] {
        at(&mut run, millis);
        assert_admitted(&run.ask_or_book(caller(1), ONE, equal(7)));
    }
    assert_eq!(promised(&mut run, caller(1), unique(8)), 4_000);
}

#[test]
fn one_callers_bookings_leave_room_for_a_newcomer() {
    let mut run = one_a_second();
    let book = |run: &mut Run, caller, digest| {
        let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask_or_book(caller, ONE, unique(digest))
        else {
            panic!("it is empty")
        };
        refusal.booked.then_some(refusal.wait)
    };
    let greedy = (0..200)
        .filter(|digest| book(&mut run, caller(1), *digest).is_some())
        .count();
    assert!((20..=31).contains(&greedy), "{greedy} of the 60 that there are");
    let newcomer = book(&mut run, caller(2), 0).expect("there is room");
    assert!(newcomer <= MINUTE);
    let second = (1..200)
        .filter(|digest| book(&mut run, caller(2), *digest).is_some())
        .count();
    assert!(second >= 10, "{second}");
    book(&mut run, caller(3), 0).expect("there is still room");
}

#[test]
fn who_is_refused_without_a_booking_while_all_is_booked_is_spread_out() {
    let mut run = one_a_second();
    for digest in 0..200 {
        run.ask_or_book(caller(1), ONE, unique(digest));
    }
    let mut waits: Vec<_> = (200..220)
        .map(|digest| {
            let refusal = refusal(run.ask_or_book(caller(1), ONE, unique(digest)));
            assert!(!refusal.booked && !refusal.exact);
            refusal.wait
        })
        .collect();
    waits.sort_unstable();
    let closest = waits.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(closest > SECOND / 2, "{waits:?}");
}

#[test]
fn callers_who_never_come_back_do_not_keep_others_out() {
    let mut run = one_a_second();
    let mut admitted = 0;
    let mut digest = 0;
    // Twenty tries a second, for ten minutes.
    for step in 0..12_000 {
        at(&mut run, step * 50);
        digest += 1;
        let id = u32::try_from(digest % 5).unwrap();
        match run.ask_or_book(caller(id), ONE, unique(digest)) {
            Outcome::Admitted if step >= 6_000 => admitted += 1,
            _ => {}
        }
        run.settle_all(crate::trace::Used::All);
    }
    // In the second half, in which that is known of them.
    assert!(admitted >= 290, "{admitted} of 300");
}

#[test]
fn half_of_the_callers_coming_back_are_admitted_at_their_time() {
    let mut run = one_a_second();
    let (mut came, mut kept) = (0, 0);
    let mut expected: Vec<(Time, u32, u64)> = Vec::new();
    for step in 0..12_000_u64 {
        let now = Time::after_epoch(Duration::from_millis(step * 50 + 1));
        expected.sort_unstable();
        while let Some((due, id, digest)) = expected.first().copied()
            && due <= now
        {
            expected.remove(0);
            run.clock = due;
            let outcome = run.ask_or_book(caller(id), ONE, unique(digest));
            came += 1;
            kept += u32::from(matches!(outcome, Outcome::Admitted));
        }
        run.clock = now;
        // Every second caller is one of those who come back.
        let id = u32::try_from(step % 50).unwrap();
        let refused = run.ask_or_book(caller(id), ONE, unique(step));
        if let Outcome::Refused(.., Refusal::NotNow(refusal)) = refused
            && refusal.booked
            && id % 2 == 0
        {
            expected.push((now + refusal.wait, id, step));
        }
        run.settle_all(crate::trace::Used::All);
    }
    assert!(came > 100 && kept * 100 >= came * 95, "{kept} of {came}");
}

#[test]
fn a_limiter_forgets_bookings_of_those_who_asked_once() {
    let mut limiter = Limiter::new(only(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap()));
    let first = limiter.admit(Time::ZERO, ANYONE, ONE).unwrap();
    for digest in 0..1_000 {
        assert!(
            limiter
                .admit_or_book(Time::ZERO, caller(digest % 100), ONE, unique(u64::from(digest)))
                .is_err()
        );
    }
    limiter.settle(Time::ZERO, first, ONE);
    // A minute and the grace after the last of them nothing is kept back.
    let later = Time::after_epoch(MINUTE + GRACE + NANO);
    assert_eq!(limiter.levels(later, ANYONE)[0].full_in, Duration::ZERO);
    assert!(limiter.admit(later, ANYONE, ONE).is_ok());
}
