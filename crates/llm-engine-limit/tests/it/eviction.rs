//! Tables that anybody can fill are bounded. Forgetting those who owe nothing changes no decision, and who owes something
//! is not forgotten.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::shapes::{ANYONE, config, policy, some_quota};
use crate::trace::{Pause, Run, Used, pause, used, want};
use llm_engine_limit::{
    Cost, Fingerprint, Limiter, LimiterOptions, Per, Policy, Quota, Refusal, Reservation, Subject, Time,
    Unit, User,
};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

fn from(address: u64) -> Subject {
    Subject { address, ..ANYONE }
}

fn per_address() -> Per {
    Per {
        address: true,
        ..Per::default()
    }
}

fn limiter(policies: Vec<Policy>, most_keys: u32) -> Limiter {
    let options = LimiterOptions {
        most_keys,
        hash_seed: 7,
    };
    Limiter::with_options(policies, options)
}

fn two_a_minute() -> Vec<Policy> {
    let quota = Quota::new(2, MINUTE).unwrap();
    vec![policy("each", per_address(), vec![(Unit::Requests, quota)])]
}

/// Takes as much as it gets, one by one.
fn take_all(limiter: &mut Limiter, now: Time, subject: Subject) -> usize {
    let mut taken = 0;
    while taken < 10
        && let Ok(reservation) = limiter.admit(now, subject, ONE)
    {
        limiter.settle(now, reservation, ONE);
        taken += 1;
    }
    taken
}

fn refused(limiter: &mut Limiter, now: Time, subject: Subject) -> Duration {
    match limiter.admit(now, subject, ONE) {
        Err(Refusal::NotNow(refusal)) => {
            assert!(
                !refusal.refused.is_empty(),
                "nothing is said to refuse: {refusal:?}"
            );
            refusal.wait
        }
        answer => panic!("not refused: {answer:?}"),
    }
}

#[derive(Debug, Clone)]
enum Event {
    Pass(Pause),
    Ask(u64, crate::trace::Want),
    Settle(prop::sample::Index, Used),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => pause().prop_map(Event::Pass),
        6 => (0..40_u64, want()).prop_map(|(key, want)| Event::Ask(key, want)),
        5 => (any::<prop::sample::Index>(), used(true)).prop_map(|(pick, used)| Event::Settle(pick, used)),
    ];
    vec(event, 1..=150)
}

proptest! {
    #![proptest_config(config(192))]

    /// Of the tiny table every row is looked at for each new key. While no more keys than that owe anything or run, it
    /// answers as one that never forgets.
    #[test]
    fn forgetting_those_who_owe_nothing_changes_no_answer(
        quota in some_quota(),
        most in proptest::option::of(1..=3_u32),
        per_user in any::<bool>(),
        events in events(),
    ) {
        const TINY: u32 = 4;
        let per = if per_user {
            Per { user: true, caller: true, ..Per::default() }
        } else {
            per_address()
        };
        let subject = |key: u64| {
            let number = u32::try_from(key).unwrap();
            Subject { address: key, user: User([number / 2, number + 1, 0]), ..ANYONE }
        };
        let policies = vec![Policy {
            concurrency: most.and_then(NonZeroU32::new),
            ..policy("each", per, vec![(Unit::OutputTokens, quota)])
        }];
        let mut tiny = limiter(policies.clone(), TINY);
        let mut huge = limiter(policies.clone(), 1_000_000);
        // For its amounts and pauses.
        let measure = Run::new(&policies);
        let mut now = Time::ZERO;
        let mut open: Vec<(u64, Cost, Reservation, Reservation)> = Vec::new();
        for event in events {
            match event {
                Event::Pass(pause) => now = Time::from_nanos(now.as_nanos() + measure.nanos(pause)),
                Event::Ask(key, want) => {
                    let owes = |key: &u64| {
                        let level = &huge.levels(now, subject(*key))[0];
                        !level.full_in.is_zero() || open.iter().any(|(other, ..)| other == key)
                    };
                    let owing = (0..40).filter(|other| *other == key || owes(other)).count();
                    if owing > usize::try_from(TINY).unwrap() {
                        continue;
                    }
                    let cost = measure.cost(want);
                    match [&mut tiny, &mut huge].map(|limiter| limiter.admit(now, subject(key), cost)) {
                        [Ok(one), Ok(other)] => open.push((key, cost, one, other)),
                        [Err(one), Err(other)] => prop_assert_eq!(without_guesses(one), without_guesses(other)),
                        answers => prop_assert!(false, "{answers:?}"),
                    }
                }
                Event::Settle(pick, used) if !open.is_empty() => {
                    let (_, cost, one, other) = open.swap_remove(pick.index(open.len()));
                    tiny.settle(now, one, used.of(cost));
                    huge.settle(now, other, used.of(cost));
                }
                Event::Settle(..) => {}
            }
        }
    }

    /// Whoever comes: what all together are admitted is what the rows and the one that is shared have to give.
    #[test]
    fn a_full_table_admits_no_more_than_its_rows_and_the_shared_one_hold(
        asks in vec((0..50_u64, 1..=2_u64), 1..=150),
        most_keys in 0..=5_u32,
    ) {
        let mut limiter = limiter(two_a_minute(), most_keys);
        let mut admitted = 0;
        for (key, requests) in asks {
            let cost = Cost { requests, ..Cost::NOTHING };
            if let Ok(reservation) = limiter.admit(Time::ZERO, from(key), cost) {
                limiter.settle(Time::ZERO, reservation, cost);
                admitted += requests;
            }
        }
        prop_assert!(admitted <= 2 * u64::from(most_keys + 1));
    }
}

fn without_guesses(refusal: Refusal) -> Refusal {
    match refusal {
        // The average of how long requests run is the same in both, but it is not what is compared.
        Refusal::NotNow(refusal) if !refusal.exact => Refusal::NotNow(llm_engine_limit::NotNow {
            wait: Duration::ZERO,
            ..refusal
        }),
        refusal => refusal,
    }
}

#[test]
fn keys_that_come_when_all_rows_are_needed_share_one() {
    let mut limiter = limiter(two_a_minute(), 3);
    for key in 0..3 {
        assert_eq!(take_all(&mut limiter, Time::ZERO, from(key)), 2);
    }
    assert_eq!(take_all(&mut limiter, Time::ZERO, from(3)), 2);
    for key in 4..20 {
        assert_eq!(refused(&mut limiter, Time::ZERO, from(key)), MINUTE / 2);
    }
    for key in 0..3 {
        assert_eq!(refused(&mut limiter, Time::ZERO, from(key)), MINUTE / 2);
    }
    // Once the others have paid, each has a row of its own.
    let later = Time::after_epoch(MINUTE);
    for key in 10..13 {
        assert_eq!(take_all(&mut limiter, later, from(key)), 2);
    }
}

#[test]
fn one_that_took_from_the_shared_row_has_no_second_burst_in_its_own() {
    let mut limiter = limiter(two_a_minute(), 1);
    assert_eq!(take_all(&mut limiter, Time::ZERO, from(0)), 2);
    let late = Time::after_epoch(MINUTE - Duration::from_secs(1));
    assert_eq!(take_all(&mut limiter, late, from(1)), 2);
    let later = Time::after_epoch(MINUTE);
    assert_eq!(
        refused(&mut limiter, later, from(1)),
        Duration::from_secs(29),
        "as if it had stayed there"
    );
}

#[test]
fn keys_that_share_a_row_are_refused_by_it_while_others_have_bookings_too() {
    let mut limiter = limiter(two_a_minute(), 2);
    for key in 0..2 {
        assert_eq!(take_all(&mut limiter, Time::ZERO, from(key)), 2);
    }
    let fingerprint = Fingerprint {
        digest: 1,
        is_unique: true,
    };
    let Err(Refusal::NotNow(refusal)) = limiter.admit_or_book(Time::ZERO, from(0), ONE, fingerprint) else {
        panic!("it is empty")
    };
    assert!(refusal.booked);
    assert_eq!(take_all(&mut limiter, Time::ZERO, from(5)), 2);
    for key in 6..9 {
        assert_eq!(refused(&mut limiter, Time::ZERO, from(key)), MINUTE / 2);
    }
}

#[test]
fn a_debtor_is_never_forgiven_whatever_new_keys_come() {
    let mut limiter = limiter(two_a_minute(), 4);
    let debtor = limiter.admit(Time::ZERO, from(1_000), ONE).unwrap();
    let all = Cost {
        requests: 100,
        ..Cost::NOTHING
    };
    limiter.settle(Time::ZERO, debtor, all);
    for key in 0..1_000 {
        let now = Time::after_epoch(Duration::from_secs(key));
        let reservation = limiter.admit(now, from(key), ONE);
        if let Ok(reservation) = reservation {
            limiter.settle(now, reservation, ONE);
        }
        // It owes 98 and wants one: 30 s each.
        let owed = Duration::from_secs(99 * 30 - key);
        assert_eq!(refused(&mut limiter, now, from(1_000)), owed);
    }
}

#[test]
fn one_that_runs_keeps_its_row_however_many_come() {
    let policies = vec![Policy {
        concurrency: NonZeroU32::new(1),
        ..policy("each", per_address(), vec![])
    }];
    let mut limiter = limiter(policies, 2);
    let running = limiter.admit(Time::ZERO, from(7), ONE).unwrap();
    for key in 100..200 {
        let other = limiter.admit(Time::ZERO, from(key), ONE).unwrap();
        assert!(limiter.admit(Time::ZERO, from(7), ONE).is_err());
        limiter.settle(Time::ZERO, other, ONE);
    }
    limiter.settle(Time::ZERO, running, ONE);
    assert!(limiter.admit(Time::ZERO, from(7), ONE).is_ok());
}

#[test]
fn one_that_runs_on_the_shared_row_ends_there() {
    let policies = vec![Policy {
        concurrency: NonZeroU32::new(1),
        ..policy("each", per_address(), vec![])
    }];
    let mut limiter = limiter(policies, 1);
    let owner = limiter.admit(Time::ZERO, from(1), ONE).unwrap();
    let sharing = limiter.admit(Time::ZERO, from(2), ONE).unwrap();
    assert!(limiter.admit(Time::ZERO, from(3), ONE).is_err());
    limiter.settle(Time::ZERO, owner, ONE);
    // Now it would have a row of its own, but what runs is counted where it was.
    let own = limiter.admit(Time::ZERO, from(2), ONE).unwrap();
    limiter.settle(Time::ZERO, sharing, ONE);
    assert!(limiter.admit(Time::ZERO, from(2), ONE).is_err());
    assert!(limiter.admit(Time::ZERO, from(3), ONE).is_ok());
    limiter.settle(Time::ZERO, own, ONE);
}
