//! Times that are promised to refused requests: each has its own, and who comes at it is admitted.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::shapes::{ANYONE, only, policy};
use crate::trace::{Outcome, Run, Used, before};
use llm_engine_limit::{
    Budget, Calendar, Cost, Fingerprint, Limiter, NotNow, Per, Period, Policy, Quota, Refusal, Subject, Time,
    Unit, User,
};

pub(crate) const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const GRACE: Duration = Duration::from_secs(3);
pub(crate) const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

/// A request that can be told apart from all others.
pub(crate) fn unique(digest: u64) -> Fingerprint {
    Fingerprint {
        digest,
        is_unique: true,
    }
}

/// One of many equal requests.
fn equal(digest: u64) -> Fingerprint {
    Fingerprint {
        digest,
        is_unique: false,
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

/// One request at once and one a second, and something else, in one policy.
fn one_a_second_and(more: Policy) -> Run {
    let quota = Quota::with_burst(60, MINUTE, 1).unwrap();
    let mut policy = more;
    policy.quotas.insert(0, (Unit::Requests, quota));
    Run::new(&[policy])
}

/// Counts no request, only this many tokens.
fn tokens(output_tokens: u64) -> Cost {
    Cost {
        output_tokens,
        ..Cost::NOTHING
    }
}

#[test]
fn who_asks_again_is_told_of_each_quota_how_long_that_one_takes() {
    let tokens_too = vec![(Unit::OutputTokens, Quota::new(60, MINUTE).unwrap())];
    let mut run = one_a_second_and(policy("p", Per::default(), tokens_too));
    assert_admitted(&run.ask(
        caller(1_000),
        Cost {
            requests: 1,
            ..tokens(55)
        },
    ));
    let cost = Cost {
        requests: 1,
        ..tokens(10)
    };
    for _ in 0..3 {
        let refusal = refusal(run.ask_or_book(caller(1), cost, unique(0)));
        assert_eq!(refusal.wait, SECOND * 5);
        let waits: Vec<_> = refusal.refused.iter().map(|refused| refused.wait).collect();
        assert_eq!(waits, [SECOND, SECOND * 5]);
    }
}

#[test]
fn who_comes_at_its_time_and_finds_no_place_keeps_its_turn_for_the_grace() {
    let mut run = one_a_second_and(Policy {
        concurrency: NonZeroU32::new(1),
        ..policy("p", Per::default(), vec![])
    });
    assert_admitted(&run.ask(caller(1_000), ONE));
    run.settle_all(Used::All);
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    assert_admitted(&run.ask(caller(1_000), tokens(1)));
    at(&mut run, 1_000);
    let no_place = refusal(run.ask_or_book(caller(1), ONE, unique(0)));
    assert!(!no_place.booked && !no_place.exact, "{no_place:?}");
    run.settle_all(Used::All);
    at(&mut run, 1_200);
    assert!(matches!(run.ask(caller(2), ONE), Outcome::Refused(..)));
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
}

#[test]
fn who_comes_at_its_time_and_finds_a_budget_spent_has_no_booking_any_more() {
    let day = Calendar::new(Period::Day, "UTC", 0, vec![Time::ZERO + MINUTE * 60]);
    let mut run = one_a_second_and(Policy {
        budgets: vec![(Unit::OutputTokens, Budget::new(10, day).unwrap())],
        ..policy("p", Per::default(), vec![])
    });
    assert_admitted(&run.ask(caller(1_000), ONE));
    let cost = Cost {
        requests: 1,
        ..tokens(1)
    };
    let refused = refusal(run.ask_or_book(caller(1), cost, unique(0)));
    assert!(refused.booked && refused.wait == SECOND, "{refused:?}");
    assert_admitted(&run.ask(caller(1_000), tokens(10)));
    at(&mut run, 1_000);
    let spent = refusal(run.ask_or_book(caller(1), cost, unique(0)));
    assert!(!spent.booked && spent.wait == MINUTE * 60 - SECOND, "{spent:?}");
    assert_admitted(&run.ask(caller(2), ONE));
}

#[test]
fn a_time_is_kept_for_what_it_was_booked_for() {
    // Two models share a quota; another model has one of its own.
    let of_model = |name, model, quota| {
        let mut policy = policy(name, Per::default(), vec![(Unit::OutputTokens, quota)]);
        policy.matches.model = Some(model);
        policy
    };
    let quota = |burst| Quota::with_burst(60, MINUTE, burst).unwrap();
    let policies = [of_model("shared", 0, quota(10)), of_model("own", 1, quota(1))];
    let on = |model, id| Subject { model, ..caller(id) };
    for (model, booked, claimed) in [(1, 1, 1), (0, 1, 3)] {
        let mut run = Run::new(&policies);
        assert_admitted(&run.ask(on(0, 1_000), tokens(10)));
        assert_admitted(&run.ask(on(1, 1_000), tokens(1)));
        let ticket = refusal(run.ask_or_book(on(model, 1), tokens(booked), unique(7)));
        let other = refusal(run.ask_or_book(on(0, 2), tokens(1), unique(0)));
        assert!(ticket.booked && other.booked);
        // It comes with it for something else, or for more.
        run.clock = before(Time::ZERO + other.wait, NANO);
        let outcome = run.ask_or_book(on(0, 1), tokens(claimed), unique(7));
        assert!(matches!(outcome, Outcome::Refused(..)), "{outcome:?}");
        run.clock = Time::ZERO + other.wait;
        assert_admitted(&run.ask_or_book(on(0, 2), tokens(1), unique(0)));
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
fn who_asks_again_when_a_budget_is_spent_or_no_place_is_free_is_told_of_that() {
    let day = Calendar::new(Period::Day, "UTC", 0, vec![Time::ZERO + MINUTE * 60]);
    let budget = Policy {
        budgets: vec![(Unit::OutputTokens, Budget::new(10, day).unwrap())],
        ..policy("p", Per::default(), vec![])
    };
    let place = Policy {
        concurrency: NonZeroU32::new(1),
        ..policy("p", Per::default(), vec![])
    };
    for (more, is_budget) in [(budget, true), (place, false)] {
        let mut run = one_a_second_and(more);
        assert_admitted(&run.ask(caller(1_000), ONE));
        run.settle_all(Used::All);
        let cost = Cost {
            requests: 1,
            ..tokens(1)
        };
        assert!(refusal(run.ask_or_book(caller(1), cost, unique(0))).booked);
        assert_admitted(&run.ask(caller(1_000), tokens(10)));
        at(&mut run, 500);
        let again = refusal(run.ask_or_book(caller(1), cost, unique(0)));
        assert!(!again.booked, "{again:?}");
        assert_eq!(again.exact, is_budget, "{again:?}");
        assert!(!is_budget || again.wait > MINUTE, "{again:?}");
    }
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
fn places_are_not_booked() {
    let mut few = policy("few", Per::default(), vec![]);
    few.concurrency = std::num::NonZeroU32::new(1);
    let mut run = Run::new(&[few]);
    assert_admitted(&run.ask(ANYONE, ONE));
    let refusal = refusal(run.ask_or_book(ANYONE, ONE, unique(0)));
    assert!(!refusal.booked && !refusal.exact);
    run.settle(0, ONE);
    assert_admitted(&run.ask(ANYONE, ONE));
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
fn a_booked_time_is_one_at_which_every_quota_has_enough() {
    // Requests come back at one a second; of tokens there are many, but they come back at one a second too.
    let requests = Quota::with_burst(60, MINUTE, 1).unwrap();
    let tokens = Quota::with_burst(60, MINUTE, 60).unwrap();
    for is_one_policy in [true, false] {
        let quotas = vec![(Unit::Requests, requests), (Unit::OutputTokens, tokens)];
        let policies = if is_one_policy {
            vec![policy("both", Per::default(), quotas)]
        } else {
            let per_model = Per {
                model: true,
                ..Per::default()
            };
            vec![
                policy("requests", Per::default(), quotas[..1].to_vec()),
                policy("tokens", per_model, quotas[1..].to_vec()),
            ]
        };
        let mut run = Run::new(&policies);
        let cost = Cost {
            requests: 1,
            output_tokens: 20,
            ..Cost::NOTHING
        };
        assert_admitted(&run.ask(caller(0), cost));
        let mut times = Vec::new();
        for id in 1..=4 {
            let refusal = refusal(run.ask_or_book(caller(id), cost, unique(0)));
            if refusal.booked {
                times.push((id, run.clock + refusal.wait));
            }
        }
        assert!(times.len() >= 2);
        for (id, due) in times {
            run.clock = due;
            assert_admitted(&run.ask_or_book(caller(id), cost, unique(0)));
        }
    }
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
fn several_policies_answer_with_the_longest_of_their_waits_and_book_it_in_all() {
    let slow = policy(
        "slow",
        Per::default(),
        vec![(Unit::Requests, Quota::with_burst(6, MINUTE, 1).unwrap())],
    );
    let per_caller = Per {
        caller: true,
        ..Per::default()
    };
    let own = policy(
        "own",
        per_caller,
        vec![(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap())],
    );
    let mut run = Run::new(&[own, slow]);
    assert_admitted(&run.ask(caller(1), ONE));
    let levels = run.levels(caller(1));
    let first = refusal(run.ask_or_book(caller(1), ONE, unique(0)));
    assert_eq!(
        (first.wait, first.booked, first.refused.len()),
        (10 * SECOND, true, 2)
    );
    let second = refusal(run.ask_or_book(caller(2), ONE, unique(0)));
    assert_eq!(
        (second.wait, second.booked, second.refused.len()),
        (20 * SECOND, true, 1)
    );
    assert_eq!(levels, run.levels(caller(1)));
    run.clock = run.clock + 10 * SECOND;
    assert!(matches!(run.ask(caller(2), ONE), Outcome::Refused(..)));
    assert_admitted(&run.ask_or_book(caller(1), ONE, unique(0)));
    run.clock = run.clock + 10 * SECOND;
    assert_admitted(&run.ask_or_book(caller(2), ONE, unique(0)));
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
