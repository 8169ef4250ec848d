//! Bookings where several quotas have a say: others of the same policy, budgets, places.

use std::num::NonZeroU32;

use crate::bookings::{
    MINUTE, NANO, ONE, SECOND, assert_admitted, at, caller, promised, refusal, tokens, unique,
};
use crate::shapes::{ANYONE, policy};
use crate::trace::{Outcome, Run, Used, before};
use llm_engine_limit::{Budget, Calendar, Cost, Per, Period, Policy, Quota, Subject, Time, Unit};

/// One request at once and one a second, and something else, in one policy.
fn one_a_second_and(more: Policy) -> Run {
    let quota = Quota::with_burst(60, MINUTE, 1).unwrap();
    let mut policy = more;
    policy.quotas.insert(0, (Unit::Requests, quota));
    Run::new(&[policy])
}

/// Counts no request, only this many tokens.
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
fn places_are_not_booked() {
    let mut few = policy("few", Per::default(), vec![]);
    few.concurrency = NonZeroU32::new(1);
    let mut run = Run::new(&[few]);
    assert_admitted(&run.ask(ANYONE, ONE));
    let refusal = refusal(run.ask_or_book(ANYONE, ONE, unique(0)));
    assert!(!refusal.booked && !refusal.exact);
    run.settle(0, ONE);
    assert_admitted(&run.ask(ANYONE, ONE));
}
