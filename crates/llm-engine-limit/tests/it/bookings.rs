//! Times that are promised to refused requests: each has its own, and who comes at it is admitted; whatever was promised,
//! the bounds hold.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::bound::{admitted, assert_within_burst_and_rate, assert_within_strict_limit};
use crate::ledger::{applies, partition};
use crate::shapes::{
    ANYONE, Limit, any_policies, config, only, policy, quota_policies, some_quota, subjects,
};
use crate::trace::{Allow, Outcome, Run, Step, Used, before, steps};
use llm_engine_limit::{
    Budget, Calendar, Cost, Counted, Fingerprint, Limiter, NotNow, Per, Period, Policy, Quota, Refusal,
    Subject, Time, Unit,
};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(3);
const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};
const BOOKING: Allow = Allow {
    overruns: true,
    clock_back: false,
    bookings: true,
};

/// A request that can be told apart from all others.
fn unique(digest: u64) -> Fingerprint {
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

fn caller(caller: u32) -> Subject {
    Subject { caller, ..ANYONE }
}

/// One a second, one at once, for all; and that one is taken.
fn one_a_second() -> Run {
    let mut run = Run::new(&only(Unit::Requests, Quota::with_burst(60, MINUTE, 1).unwrap()));
    assert!(matches!(run.ask(caller(1_000), ONE), Outcome::Admitted));
    run
}

fn at(run: &mut Run, millis: u64) {
    run.clock = Time::after_epoch(Duration::from_millis(millis));
}

fn refusal(outcome: Outcome) -> NotNow {
    match outcome {
        Outcome::Refused(.., Refusal::NotNow(refusal)) => refusal,
        outcome => panic!("not refused: {outcome:?}"),
    }
}

/// The time that was promised, in milliseconds.
fn promised(run: &mut Run, caller: Subject, fingerprint: Fingerprint) -> u64 {
    let refusal = refusal(run.ask_or_book(caller, ONE, fingerprint));
    assert!(refusal.booked && refusal.exact, "{refusal:?}");
    let due = run.clock + refusal.wait;
    assert!(due.as_nanos().is_multiple_of(1_000_000), "{due:?}");
    due.as_nanos() / 1_000_000
}

#[track_caller]
fn assert_admitted(outcome: &Outcome) {
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
fn times_that_were_given_up_make_nobody_wait() {
    let mut run = one_a_second();
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    for _ in 0..3 {
        for digest in 0..20 {
            promised(&mut run, caller(2), unique(digest));
        }
        for digest in (0..20).rev() {
            run.limiter.cancel_booking(run.clock, 2, unique(digest));
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
    run.limiter.cancel_booking(run.clock, 2, unique(0));
    run.limiter.cancel_booking(run.clock, 1, unique(1));
    assert_eq!(promised(&mut run, caller(1), unique(0)), 1_000);
    run.limiter.cancel_booking(run.clock, 1, unique(0));
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
        run.limiter.cancel_booking(run.clock, id, unique(0));
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

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn with_bookings_settled_usage_is_within_burst_rate_and_grace(
        policies in any_policies(),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 150),
    ) {
        assert_never_over(&policies, &steps)?;
    }

    #[test]
    fn with_bookings_settled_usage_of_one_busy_bucket_is_within_burst_rate_and_grace(
        quota in some_quota(),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 250),
    ) {
        assert_never_over(&only(Unit::OutputTokens, quota), &steps)?;
    }

    #[test]
    fn strict_quotas_hold_their_limit_in_any_window_even_with_bookings(
        quota in some_quota().prop_filter("strict", Quota::is_strict),
        steps in steps(Allow { clock_back: true, ..BOOKING }, 250),
    ) {
        let run = Run::play(&only(Unit::OutputTokens, quota), &steps);
        for ledger in run.ledgers() {
            assert_within_strict_limit(&quota, &admitted(&ledger))?;
            assert_within_burst_and_rate(&quota, Duration::ZERO, &admitted(&ledger))?;
        }
    }

    /// What is missing does not change; what is kept back for those who are due may, when one of them is refused.
    #[test]
    fn a_refusal_that_books_changes_no_level(
        policies in any_policies(),
        steps in steps(BOOKING, 120),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let earlier = run.clock;
            let before = full_in(&run, earlier);
            if let Outcome::Refused(..) = run.step(step) {
                let after = full_in(&run, run.clock);
                for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
                    let (was_full_at, is_full_at) = (earlier + *before, run.clock + *after);
                    prop_assert!(was_full_at == is_full_at || (after.is_zero() && was_full_at < run.clock));
                }
            }
        }
    }

    /// Beside one whose refused requests, and those who book, have never come.
    #[test]
    fn bookings_that_are_not_kept_leave_every_level_as_it_was(
        policies in any_policies(),
        steps in steps(BOOKING, 120),
    ) {
        let mut run = Run::new(&policies);
        let mut spared = Run::new(&policies);
        for step in &steps {
            let outcome = run.step(step);
            spared.clock = run.clock;
            match step {
                Step::Settle(..) if matches!(outcome, Outcome::Settled) => {
                    spared.step(step);
                }
                _ if matches!(outcome, Outcome::Admitted) => {
                    let (request, _) = run.open.last().expect("it is open");
                    let request = &run.requests[*request];
                    // One that comes at its booked time may be admitted a little early, which the other does not know.
                    prop_assume!(matches!(spared.ask(request.subject, request.cost), Outcome::Admitted));
                }
                _ => {}
            }
            prop_assert_eq!(full_in(&run, run.latest), full_in(&spared, run.latest));
        }
    }

    #[test]
    fn answers_among_bookings_are_consistent(
        policies in any_policies(),
        steps in steps(BOOKING, 150),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let outcome = run.step(step);
            if let Outcome::Refused(subject, cost, Refusal::NotNow(refusal)) = outcome {
                prop_assert!(!refusal.refused.is_empty());
                prop_assert!(!refusal.wait.is_zero() || run.clock == Time::END, "{refusal:?}");
                let longest = refusal.refused.iter().map(|refused| refused.wait).max();
                prop_assert!(refusal.wait >= longest.unwrap_or_default() || refusal.booked, "{refusal:?}");
                for refused in &refusal.refused {
                    let policy = policies.iter().find(|policy| policy.name == refused.policy).expect("it has a name");
                    prop_assert!(applies(policy, subject));
                    prop_assert!(refused.counted.unit().is_none_or(|unit| unit.of(cost) == refused.asked));
                }
            }
        }
    }

    #[test]
    fn with_no_other_booking_a_promised_time_is_the_first_at_which_the_request_is_admitted(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 80),
    ) {
        let mut run = Run::new(&policies);
        for step in &steps {
            let Step::Ask(subject, want) = step else {
                run.step(step);
                continue;
            };
            let cost = run.cost(*want);
            let Outcome::Refused(.., Refusal::NotNow(refusal)) = run.ask_or_book(*subject, cost, unique(1)) else {
                continue;
            };
            let concurrency = |refusal: &NotNow| {
                refusal.refused.iter().any(|refused| refused.counted == Counted::Concurrency)
            };
            prop_assert_eq!(refusal.exact, !concurrency(&refusal));
            if refusal.booked {
                prop_assert!(refusal.exact && refusal.wait <= MINUTE);
            }
            let due = run.clock + refusal.wait;
            if !refusal.exact || due == Time::END {
                continue;
            }
            run.clock = run.clock.max(before(due, NANO));
            if run.clock < due {
                let early = run.ask_or_book(*subject, cost, unique(1));
                let Outcome::Refused(.., Refusal::NotNow(again)) = early else {
                    return Err(TestCaseError::fail(format!("before {due:?}: {early:?}, {refusal:?}")));
                };
                prop_assert_eq!(run.clock + again.wait, due);
                prop_assert!(again.booked || !refusal.booked);
            }
            run.clock = due;
            let on_time = run.ask_or_book(*subject, cost, unique(1));
            prop_assert!(matches!(on_time, Outcome::Admitted), "at {due:?}: {on_time:?}");
        }
    }

    #[test]
    fn promised_times_of_one_bucket_are_distinct_and_all_are_kept(
        // A strict quota has no slack: who comes a nanosecond late there makes the next one come late.
        quota in some_quota().prop_filter("not strict", |quota| !quota.is_strict()),
        before in steps(Allow { overruns: true, ..Allow::default() }, 40),
        asks in vec((0..3_u32, 0..=1_000_u64, 0..=100_u64), 1..=30),
    ) {
        let mut run = Run::play(&only(Unit::OutputTokens, quota), &before);
        prop_assume!(run.clock < Time::from_nanos(1 << 59));
        let mut first_due = Time::END;
        for (digest, (id, per_mille, nanos)) in (0..).zip(asks) {
            if run.clock + Duration::from_nanos(nanos) < first_due {
                run.clock = run.clock + Duration::from_nanos(nanos);
            }
            let cost = Cost { output_tokens: (quota.burst() * per_mille / 1_000).max(1), ..Cost::NOTHING };
            run.ask_or_book(caller(id), cost, unique(digest));
            first_due = run.promises.iter().map(|promise| promise.due).min().unwrap_or(Time::END);
        }
        let mut promises = run.promises.clone();
        promises.sort_by_key(|promise| promise.due);
        for pair in promises.windows(2) {
            prop_assert!(pair[0].due < pair[1].due, "{pair:?}");
        }
        for promise in promises {
            prop_assert!(promise.due > run.clock);
            run.clock = promise.due;
            let outcome = run.ask_or_book(promise.subject, promise.cost, promise.fingerprint);
            prop_assert!(matches!(outcome, Outcome::Admitted), "{promise:?} {outcome:?}");
        }
    }

    #[test]
    fn promised_times_of_several_policies_are_distinct_by_bucket(
        policies in quota_policies(),
        before in steps(Allow { overruns: true, ..Allow::default() }, 40),
        asks in steps(BOOKING, 60),
    ) {
        let mut run = Run::play(&policies, &before);
        for (digest, step) in (100..).zip(&asks) {
            if let Step::Book(subject, want, _) = step {
                run.ask_or_book(*subject, run.cost(*want), unique(digest));
            }
        }
        for (index, one) in run.promises.iter().enumerate() {
            for other in &run.promises[index + 1..] {
                let share = |policy: &Policy| {
                    applies(policy, one.subject)
                        && applies(policy, other.subject)
                        && partition(policy, one.subject) == partition(policy, other.subject)
                };
                prop_assert!(one.due != other.due || !policies.iter().any(share), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn many_units_at_once_are_as_good_as_one_by_one_among_bookings(
        quota in some_quota(),
        steps in steps(BOOKING, 60),
        count in 1..=40_u64,
    ) {
        let cost = |units| Cost { output_tokens: units, ..Cost::NOTHING };
        let policies = only(Unit::OutputTokens, quota);
        let mut at_once = Run::play(&policies, &steps);
        let mut singly = Run::play(&policies, &steps);
        let all = matches!(at_once.ask(ANYONE, cost(count)), Outcome::Admitted);
        let admitted = (0..count).filter(|_| matches!(singly.ask(ANYONE, cost(1)), Outcome::Admitted)).count();
        prop_assert_eq!(all, admitted == usize::try_from(count).unwrap());
        if all {
            prop_assert_eq!(at_once.levels(ANYONE), singly.levels(ANYONE));
        }
    }
}

fn full_in(run: &Run, now: Time) -> Vec<Vec<Duration>> {
    subjects()
        .map(|subject| {
            let levels = run.limiter.levels(now, subject);
            levels.iter().map(|level| level.full_in).collect()
        })
        .collect()
}

fn assert_never_over(policies: &[Policy], steps: &[Step]) -> Result<(), TestCaseError> {
    for ledger in Run::play(policies, steps).ledgers() {
        if let Limit::Quota(quota) = &ledger.limit {
            let grace = if quota.is_strict() { Duration::ZERO } else { GRACE };
            assert_within_burst_and_rate(quota, grace, &admitted(&ledger))?;
        }
    }
    Ok(())
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
