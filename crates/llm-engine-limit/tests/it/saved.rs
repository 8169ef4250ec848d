//! What outlives a restart: budgets, and levels that take longer than a minute to be full again.

use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, only, only_budget, policy, subjects};
use crate::trace::{Allow, Run, Used, steps};
use llm_engine_limit::{
    Budget, Calendar, Cost, Limiter, Per, Period, Policy, Quota, Saved, SavedLevel, Subject, Time, Unit, User,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn requests(requests: u64) -> Cost {
    Cost {
        requests,
        ..Cost::NOTHING
    }
}

fn spend(limiter: &mut Limiter, now: Time, subject: Subject, cost: Cost) {
    let reservation = limiter.admit(now, subject, cost).unwrap();
    limiter.settle(now, reservation, cost);
}

#[test]
fn what_has_changed_can_be_saved_a_few_keys_at_a_time() {
    let per = Per {
        caller: true,
        ..Per::default()
    };
    let quotas = || vec![(Unit::Requests, Quota::new(10, HOUR).unwrap())];
    let policies = [policy("p", per, quotas()), policy("q", Per::default(), quotas())];
    let mut limiter = Limiter::new(policies.to_vec());
    for caller in 0..8 {
        spend(
            &mut limiter,
            Time::ZERO,
            Subject { caller, ..ANYONE },
            requests(1),
        );
    }
    limiter.begin_saving();
    let mut pieces = Vec::new();
    while let Some(saved) = limiter.save_next(Time::ZERO, 3) {
        if pieces.is_empty() {
            // This is for the next time, whether it was saved by now or not.
            spend(&mut limiter, Time::ZERO, ANYONE, requests(1));
        }
        pieces.push(saved);
    }
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
    let mut callers: Vec<_> = pieces.concat()[..8]
        .iter()
        .map(|saved| saved.subject.caller)
        .collect();
    callers.sort_unstable();
    assert_eq!(callers, (0..8).collect::<Vec<_>>());
    assert_eq!(limiter.save(Time::ZERO).len(), 2);

    // What was begun and not finished is not forgotten.
    spend(&mut limiter, Time::ZERO, ANYONE, requests(1));
    limiter.begin_saving();
    assert_eq!(limiter.save(Time::ZERO).len(), 2);
}

/// A new process: its clock begins again.
fn restart(policies: Vec<Policy>, saved: &[Saved], age: Duration) -> Limiter {
    let mut limiter = Limiter::new(policies);
    for saved in saved {
        limiter.restore(Time::ZERO, saved, age);
    }
    limiter
}

fn left(limiter: &Limiter, now: Time) -> u64 {
    limiter.levels(now, ANYONE)[0].remaining
}

/// A day's budget of 100. `first`: the number of the day at the epoch of the process; the next one begins in ten hours.
fn daily(first: u32) -> Vec<Policy> {
    let calendar = Calendar::new(Period::Day, "UTC", first, vec![Time::ZERO + HOUR * 10]);
    only_budget(Unit::Requests, Budget::new(100, calendar).unwrap())
}

#[test]
fn a_budget_of_which_60_percent_are_spent_is_so_after_a_restart() {
    let mut limiter = Limiter::new(daily(7));
    spend(&mut limiter, Time::ZERO, ANYONE, requests(60));
    let saved = limiter.save(Time::ZERO + HOUR);
    assert_eq!(saved.len(), 1);
    assert_eq!(saved[0].level, SavedLevel::Spent { window: 7, units: 60 });
    let limiter = restart(daily(7), &saved, HOUR * 2);
    assert_eq!(left(&limiter, Time::ZERO), 40);
    assert_eq!(left(&limiter, Time::ZERO + HOUR * 10), 100);
    let next_day = restart(daily(8), &saved, DAY);
    assert_eq!(left(&next_day, Time::ZERO), 100);
}

#[test]
fn what_was_spent_before_the_turn_is_not_saved_as_spent_after_it() {
    let mut limiter = Limiter::new(daily(7));
    spend(&mut limiter, Time::ZERO, ANYONE, requests(60));
    let saved = limiter.save(Time::ZERO + HOUR * 11);
    assert_eq!(saved[0].level, SavedLevel::Spent { window: 8, units: 0 });
}

#[test]
fn only_what_has_changed_is_saved() {
    let mut limiter = Limiter::new(daily(7));
    assert_eq!(limiter.save(Time::ZERO), []);
    spend(&mut limiter, Time::ZERO, ANYONE, requests(10));
    assert_eq!(limiter.save(Time::ZERO).len(), 1);
    assert_eq!(limiter.save(Time::ZERO), []);
    let running = limiter.admit(Time::ZERO, ANYONE, requests(5)).unwrap();
    assert_eq!(
        limiter.save(Time::ZERO)[0].level,
        SavedLevel::Spent { window: 7, units: 15 }
    );
    limiter.settle(Time::ZERO, running, requests(1));
    assert_eq!(
        limiter.save(Time::ZERO)[0].level,
        SavedLevel::Spent { window: 7, units: 11 }
    );
}

#[test]
fn a_long_quota_refills_while_the_process_is_down() {
    let policies = || only(Unit::Requests, Quota::new(24, DAY).unwrap());
    let mut limiter = Limiter::new(policies());
    spend(&mut limiter, Time::ZERO, ANYONE, requests(20));
    let saved = limiter.save(Time::ZERO);
    assert_eq!(saved[0].level, SavedLevel::Missing { units: 20 });
    for (age, expected) in [
        (Duration::ZERO, 4),
        (HOUR, 5),
        (HOUR * 10, 14),
        (DAY, 24),
        (DAY * 365, 24),
    ] {
        assert_eq!(
            left(&restart(policies(), &saved, age), Time::ZERO),
            expected,
            "{age:?}"
        );
    }
}

#[test]
fn a_debt_of_more_than_a_minute_outlives_a_restart() {
    // All of it is back within a minute, but more than that is owed.
    for burst in [60, 10] {
        let policies = || only(Unit::Requests, Quota::with_burst(60, MINUTE, burst).unwrap());
        let mut limiter = Limiter::new(policies());
        let reservation = limiter.admit(Time::ZERO, ANYONE, requests(burst)).unwrap();
        limiter.settle(Time::ZERO, reservation, requests(600));
        let saved = limiter.save(Time::ZERO);
        let limiter = restart(policies(), &saved, MINUTE);
        let level = limiter.levels(Time::ZERO, ANYONE).remove(0);
        assert_eq!((level.remaining, level.full_in), (0, MINUTE * 9), "burst {burst}");
    }
}

#[test]
fn what_is_back_within_a_minute_is_not_kept() {
    let mut limiter = Limiter::new(only(Unit::Requests, Quota::new(60, HOUR).unwrap()));
    spend(&mut limiter, Time::ZERO, ANYONE, requests(60));
    assert_eq!(
        limiter.save(Time::ZERO)[0].level,
        SavedLevel::Missing { units: 60 }
    );
    let reservation = limiter.admit(Time::ZERO + HOUR, ANYONE, requests(1)).unwrap();
    limiter.settle(Time::ZERO + HOUR, reservation, requests(1));
    assert_eq!(
        limiter.save(Time::ZERO + HOUR)[0].level,
        SavedLevel::Missing { units: 0 }
    );
}

#[test]
fn every_kind_of_key_comes_back_to_its_own_bucket() {
    let who = Subject {
        caller: 3,
        team: 4,
        model: 5,
        route: 6,
        address: 0x2001_0db8_0000_0007,
        user: User([8, 9, 10]),
    };
    for bits in 0..64_u32 {
        let is = |bit: u32| bits & (1 << bit) != 0;
        let per = Per {
            caller: is(0),
            team: is(1),
            user: is(2),
            model: is(3),
            route: is(4),
            address: is(5),
        };
        let policies = || {
            vec![policy(
                "long",
                per,
                vec![(Unit::Requests, Quota::new(24, DAY).unwrap())],
            )]
        };
        let mut limiter = Limiter::new(policies());
        spend(&mut limiter, Time::ZERO, who, requests(20));
        let saved = limiter.save(Time::ZERO);
        let mut again = restart(policies(), &saved, Duration::ZERO);
        assert_eq!(again.levels(Time::ZERO, who)[0].remaining, 4, "{per:?}");
        assert_eq!(
            again.levels(Time::ZERO, who),
            limiter.levels(Time::ZERO, who),
            "{per:?}"
        );
        assert_eq!(again.save(Time::ZERO), saved, "{per:?}");
    }
}

#[test]
fn what_no_policy_counts_any_more_is_left_out() {
    let mut limiter = Limiter::new(daily(7));
    spend(&mut limiter, Time::ZERO, ANYONE, requests(60));
    let saved = limiter.save(Time::ZERO);
    let mut other = daily(7);
    other[0].name = "another".into();
    assert_eq!(left(&restart(other, &saved, Duration::ZERO), Time::ZERO), 100);
    let quotas = only(Unit::Requests, Quota::new(24, DAY).unwrap());
    assert_eq!(left(&restart(quotas, &saved, Duration::ZERO), Time::ZERO), 24);
}

proptest! {
    #![proptest_config(config(128))]

    /// After no time at all. A minute's refill may be forgotten, of quotas.
    #[test]
    fn after_a_restart_nobody_has_more_than_before_but_for_what_refills_in_a_minute(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 100),
        settle in any::<bool>(),
    ) {
        let mut run = Run::play(&policies, &steps);
        if settle {
            run.settle_all(Used::All);
        }
        prop_assume!(run.clock < Time::END);
        let now = run.clock;
        let saved = run.limiter.save(now);
        let mut again = Limiter::new(policies.clone());
        // The clock of the new process is the same, so that its windows are.
        for saved in &saved {
            again.restore(now, saved, Duration::ZERO);
        }
        for subject in subjects() {
            let before = run.limiter.levels(now, subject);
            for (before, after) in before.iter().zip(again.levels(now, subject)) {
                let is_kept = before.counted.unit().is_some() && before.full_in > MINUTE;
                prop_assert!(!is_kept || after.remaining <= before.remaining, "{before:?} {after:?}");
                prop_assert!(!is_kept || after.full_in >= before.full_in, "{before:?} {after:?}");
            }
        }
    }

    /// Saved now and then, as a journal does: the latest of each bucket counts.
    #[test]
    fn a_journal_of_changes_says_the_same_as_all_at_once(
        policies in any_policies(),
        steps in steps(Allow { overruns: true, ..Allow::default() }, 100),
    ) {
        let mut run = Run::new(&policies);
        let mut journal: Vec<(Time, Saved)> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            run.step(step);
            if index % 10 == 9 || index + 1 == steps.len() {
                for saved in run.limiter.save(run.clock) {
                    journal.retain(|(_, old)| {
                        (&old.policy, old.counted, old.subject) != (&saved.policy, saved.counted, saved.subject)
                    });
                    journal.push((run.clock, saved));
                }
            }
        }
        let now = run.clock;
        prop_assume!(now < Time::END);
        let mut again = Limiter::new(policies.clone());
        for (then, saved) in &journal {
            again.restore(now, saved, now.since(*then));
        }
        for subject in subjects() {
            let before = run.limiter.levels(now, subject);
            for (before, after) in before.iter().zip(again.levels(now, subject)) {
                let is_kept = before.counted.unit().is_some() && before.full_in > MINUTE;
                prop_assert!(!is_kept || after.remaining <= before.remaining, "{before:?} {after:?}");
            }
        }
    }
}
