//! New policies at run time: nobody gains by them, and what has not changed goes on.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use crate::shapes::{ANYONE, any_policies, config, only, policy, some_quota, subjects};
use crate::trace::{Allow, Outcome, Run, Used, steps};
use llm_engine_limit::{
    Budget, Calendar, Cost, Fingerprint, Limiter, LimiterOptions, Match, Mode, Per, Period, Policy, Quota,
    Refusal, Subject, Time, Unit,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};
const FORWARD: Allow = Allow {
    overruns: true,
    clock_back: false,
    bookings: true,
};

fn requests(count: u64) -> Cost {
    Cost {
        requests: count,
        ..Cost::NOTHING
    }
}

fn caller(caller: u32) -> Subject {
    Subject { caller, ..ANYONE }
}

fn per_minute(limit: u64, burst: u64) -> Vec<Policy> {
    only(Unit::Requests, Quota::with_burst(limit, MINUTE, burst).unwrap())
}

fn at_most(most: u32) -> Policy {
    Policy {
        concurrency: NonZeroU32::new(most),
        ..policy("few", Per::default(), vec![])
    }
}

fn left(limiter: &Limiter) -> u64 {
    limiter.levels(Time::ZERO, ANYONE)[0].remaining
}

proptest! {
    #![proptest_config(config(192))]

    /// Beside a limiter that is not reloaded.
    #[test]
    fn the_same_policies_again_change_nothing(
        policies in any_policies(),
        before in steps(FORWARD, 80),
        after in steps(FORWARD, 80),
    ) {
        let mut run = Run::play(&policies, &before);
        let mut other = Run::play(&policies, &before);
        run.limiter.reload(run.clock, &policies);
        // Time passes for both.
        other.limiter.pass_time(run.clock);
        for step in &after {
            prop_assert_eq!(format!("{:?}", run.step(step)), format!("{:?}", other.step(step)));
        }
        for subject in subjects() {
            prop_assert_eq!(run.levels(subject), other.levels(subject));
        }
    }

    #[test]
    fn policies_that_come_and_go_leave_those_that_stay_as_they_are(
        policies in any_policies(),
        others in any_policies(),
        before in steps(FORWARD, 60),
        between in steps(Allow { bookings: false, ..FORWARD }, 30),
    ) {
        // Those that come are counted per an address, so that none of them stands with one that stays.
        let far = others.into_iter().enumerate().map(|(index, policy)| Policy {
            name: format!("guest {index}").into(),
            per: Per { address: true, team: true, route: true, ..Per::default() },
            matches: Match { route: Some(77), ..Match::default() },
            budgets: vec![],
            ..policy
        });
        let mut with = policies.clone();
        with.extend(far);
        let mut run = Run::play(&policies, &before);
        let mut other = Run::play(&policies, &before);
        for set in [&with, &policies, &with] {
            run.limiter.reload(run.clock, set);
            other.limiter.reload(other.clock, &policies);
            for step in &between {
                prop_assert_eq!(format!("{:?}", run.step(step)), format!("{:?}", other.step(step)));
            }
        }
        for subject in subjects() {
            prop_assert_eq!(run.levels(subject), other.levels(subject));
        }
    }

    #[test]
    fn nobody_can_take_more_than_the_new_burst_and_what_is_missing_stays_missing(
        old in some_quota(),
        new in some_quota(),
        steps in steps(Allow { bookings: false, ..FORWARD }, 60),
    ) {
        let mut run = Run::play(&only(Unit::OutputTokens, old), &steps);
        let before = run.levels(ANYONE).remove(0);
        run.limiter.reload(run.clock, &only(Unit::OutputTokens, new));
        let after = run.levels(ANYONE).remove(0);
        prop_assert!(after.remaining <= new.burst());
        if before.remaining < old.burst() {
            let missing = old.burst() - before.remaining;
            prop_assert!(after.remaining <= new.burst().saturating_sub(missing), "{before:?} {after:?}");
        } else if before.full_in.is_zero() {
            prop_assert_eq!(after.remaining, new.burst());
        }
    }

    /// Whatever was open before, and however it ends.
    #[test]
    fn reservations_from_before_are_settled_and_mint_nothing(
        old in any_policies(),
        new in any_policies(),
        before in steps(FORWARD, 80),
        after in steps(FORWARD, 60),
        last in prop_oneof![Just(Used::Nothing), Just(Used::All), Just(Used::PerMille([1_700; 4]))],
    ) {
        let mut run = Run::play(&old, &before);
        run.limiter.reload(run.clock, &new);
        let levels = |run: &Run| -> Vec<u64> {
            let levels = subjects().flat_map(|subject| run.levels(subject));
            levels.filter(|level| level.counted.unit().is_some()).map(|level| level.remaining).collect()
        };
        // What is still on the policies that were there before comes back as it always would: only changed ones are asked.
        let changed = new.iter().all(|policy| !old.iter().any(|before| before.quotas == policy.quotas && before.budgets == policy.budgets));
        let at_reload = levels(&run);
        if changed {
            run.settle_all(Used::Nothing);
            prop_assert_eq!(at_reload, levels(&run));
        }
        for step in &after {
            run.step(step);
        }
        run.settle_all(last);
    }

    /// Requests that run are counted on and end: at last nothing runs.
    #[test]
    fn what_runs_is_counted_over_any_number_of_reloads_and_ends(
        changes in prop::collection::vec((1..=4_u32, 0..=2_u8, 1..=5_u32), 1..=8),
    ) {
        let set = |most: u32, kind: u8| {
            let guest = |name: &str, mode| Policy {
                mode,
                ..policy(name, Per { model: true, ..Per::default() }, vec![(Unit::Requests, Quota::new(1, HOUR).unwrap())])
            };
            match kind {
                0 => vec![at_most(most)],
                1 => vec![guest("watching", Mode::Observe), at_most(most)],
                _ => vec![at_most(most), guest("watching too", Mode::Observe)],
            }
        };
        let mut limiter = Limiter::new(set(2, 1));
        let mut open = Vec::new();
        for (most, kind, asks) in changes {
            for _ in 0..asks {
                open.extend(limiter.admit(Time::ZERO, ANYONE, ONE).ok());
            }
            limiter.reload(Time::ZERO, &set(most, kind));
            let running = u64::try_from(open.len()).unwrap();
            let levels = limiter.levels(Time::ZERO, ANYONE);
            let few = levels.iter().find(|level| &*level.policy == "few").unwrap();
            prop_assert_eq!(few.remaining, u64::from(most).saturating_sub(running));
            if asks > 3 {
                limiter.settle(Time::ZERO, open.remove(0), ONE);
            }
        }
        for reservation in open {
            limiter.settle(Time::ZERO, reservation, ONE);
        }
        for level in limiter.levels(Time::ZERO, ANYONE).iter().filter(|level| &*level.policy == "few") {
            prop_assert_eq!(level.remaining, level.limit);
        }
    }
}

#[test]
fn a_smaller_burst_is_at_most_missing_and_a_larger_one_is_not_a_gift() {
    for (taken, new_burst, expected) in [
        (60, 50, 0),
        (60, 200, 140),
        (30, 50, 20),
        (0, 10, 10),
        (100, 1, 0),
    ] {
        let mut limiter = Limiter::new(per_minute(100, 100));
        let reservation = limiter.admit(Time::ZERO, ANYONE, requests(taken)).unwrap();
        limiter.settle(Time::ZERO, reservation, requests(taken));
        limiter.reload(Time::ZERO, &per_minute(100, new_burst));
        assert_eq!(
            left(&limiter),
            expected,
            "{taken} were taken of 100, and now there are {new_burst}"
        );
    }
}

#[test]
fn what_has_not_changed_keeps_its_exact_level_beside_what_has() {
    let set = |limit| {
        let fast = Quota::new(60, MINUTE).unwrap();
        vec![
            policy("same", Per::default(), vec![(Unit::Requests, fast)]),
            policy(
                "other",
                Per::default(),
                vec![(Unit::Requests, Quota::new(limit, HOUR).unwrap())],
            ),
        ]
    };
    let mut limiter = Limiter::new(set(1_000));
    let reservation = limiter.admit(Time::ZERO, ANYONE, requests(30)).unwrap();
    limiter.settle(Time::ZERO, reservation, requests(30));
    let later = Time::after_epoch(Duration::from_millis(1_234));
    let before = limiter.levels(later, ANYONE).remove(0);
    limiter.reload(later, &set(2_000));
    assert_eq!(limiter.levels(later, ANYONE).remove(0), before);
}

#[test]
fn a_debt_stays_a_debt_of_the_same_amount() {
    for new_burst in [50, 100, 200] {
        let mut limiter = Limiter::new(per_minute(60, 100));
        let reservation = limiter.admit(Time::ZERO, ANYONE, requests(100)).unwrap();
        limiter.settle(Time::ZERO, reservation, requests(130));
        limiter.reload(Time::ZERO, &per_minute(60, new_burst));
        // All that it had is missing, and 30 are owed.
        let missing = new_burst.min(100) + 30;
        let level = limiter.levels(Time::ZERO, ANYONE).remove(0);
        assert_eq!(level.full_in, Duration::from_secs(missing), "{new_burst}");
    }
}

#[test]
fn quotas_of_one_unit_over_several_windows_keep_each_its_own() {
    let day = Quota::new(1_000, HOUR * 24).unwrap();
    let minute = |limit| Quota::new(limit, MINUTE).unwrap();
    let set = |limit| {
        vec![policy(
            "both",
            Per::default(),
            vec![(Unit::Requests, minute(limit)), (Unit::Requests, day)],
        )]
    };
    let mut limiter = Limiter::new(set(500));
    let reservation = limiter.admit(Time::ZERO, ANYONE, requests(500)).unwrap();
    limiter.settle(Time::ZERO, reservation, requests(500));
    let later = Time::ZERO + MINUTE;
    limiter.reload(later, &set(600));
    let remaining: Vec<_> = limiter
        .levels(later, ANYONE)
        .iter()
        .map(|level| level.remaining)
        .collect();
    assert_eq!(remaining, [600, 500]);
}

#[test]
fn a_running_request_that_a_policy_no_longer_matches_does_not_run_for_ever() {
    let matching = |caller| Policy {
        matches: Match {
            caller,
            ..Match::default()
        },
        ..at_most(1)
    };
    for (before, after) in [(None, Some(2)), (Some(1), None), (Some(1), Some(2))] {
        let mut limiter = Limiter::new(vec![matching(before)]);
        let running = limiter.admit(Time::ZERO, caller(1), ONE).unwrap();
        limiter.reload(Time::ZERO, &[matching(after)]);
        limiter.settle(Time::ZERO, running, ONE);
        let one = limiter.admit(Time::ZERO, caller(2), ONE).unwrap();
        assert!(limiter.admit(Time::ZERO, caller(2), ONE).is_err());
        limiter.settle(Time::ZERO, one, ONE);
        assert!(limiter.admit(Time::ZERO, caller(2), ONE).is_ok());
    }
}

#[test]
fn what_runs_on_the_shared_row_survives_too() {
    let per_address = Per {
        address: true,
        ..Per::default()
    };
    let set = |most| {
        vec![Policy {
            per: per_address,
            ..at_most(most)
        }]
    };
    for most_keys in [0, 1] {
        let options = LimiterOptions {
            most_keys,
            ..LimiterOptions::default()
        };
        let mut limiter = Limiter::with_options(set(1), options);
        let from = |address| Subject { address, ..ANYONE };
        let mut open = Vec::new();
        for address in 5..10 {
            open.extend(limiter.admit(Time::ZERO, from(address), ONE).ok());
        }
        assert_eq!(open.len(), 1 + usize::try_from(most_keys).unwrap());
        limiter.reload(Time::ZERO, &set(2));
        let mut more = 0;
        for address in 6..20 {
            let admitted = limiter.admit(Time::ZERO, from(address), ONE).ok();
            more += usize::from(admitted.is_some());
            open.extend(admitted);
        }
        assert_eq!(more, 1, "one more on the row that they share");
        for reservation in open {
            limiter.settle(Time::ZERO, reservation, ONE);
        }
        assert_eq!(limiter.levels(Time::ZERO, from(5))[0].remaining, 2);
        assert_eq!(limiter.levels(Time::ZERO, from(0))[0].remaining, 2);
    }
}

#[test]
fn a_budget_keeps_what_is_spent_and_its_turn() {
    let budget = |limit| {
        let turns = vec![Time::ZERO + HOUR * 10];
        let calendar = Calendar::new(Period::Day, "UTC", 5, turns);
        crate::shapes::only_budget(Unit::Requests, Budget::new(limit, calendar).unwrap())
    };
    let mut limiter = Limiter::new(budget(100));
    let reservation = limiter.admit(Time::ZERO, ANYONE, requests(60)).unwrap();
    limiter.settle(Time::ZERO, reservation, requests(60));
    for (limit, remaining) in [(80, 20), (50, 0), (70, 20)] {
        limiter.reload(Time::ZERO, &budget(limit));
        assert_eq!(left(&limiter), remaining);
    }
    let Err(Refusal::NotNow(refusal)) = limiter.admit(Time::ZERO, ANYONE, requests(21)) else {
        panic!("50 of 70 are spent")
    };
    assert_eq!(refusal.wait, HOUR * 10);
}

#[test]
fn booked_times_are_kept_over_a_reload() {
    let fingerprint = Fingerprint {
        digest: 3,
        is_unique: true,
    };
    for new in [per_minute(60, 1), per_minute(120, 1), per_minute(60, 5)] {
        for reload_at in [Duration::ZERO, Duration::from_millis(1_100)] {
            let mut limiter = Limiter::new(per_minute(60, 1));
            let reservation = limiter.admit(Time::ZERO, caller(1), ONE).unwrap();
            limiter.settle(Time::ZERO, reservation, ONE);
            let Err(Refusal::NotNow(refusal)) =
                limiter.admit_or_book(Time::ZERO, caller(2), ONE, fingerprint)
            else {
                panic!("it is empty")
            };
            assert!(refusal.booked);
            limiter.reload(Time::ZERO + reload_at, &new);
            let due = Time::ZERO + refusal.wait.max(reload_at);
            assert!(limiter.admit_or_book(due, caller(2), ONE, fingerprint).is_ok());
        }
    }
}

#[test]
fn bookings_of_a_policy_that_has_gone_do_no_harm() {
    let fingerprint = Fingerprint {
        digest: 3,
        is_unique: true,
    };
    let mut limiter = Limiter::new(per_minute(60, 1));
    let reservation = limiter.admit(Time::ZERO, caller(1), ONE).unwrap();
    assert!(
        limiter
            .admit_or_book(Time::ZERO, caller(2), ONE, fingerprint)
            .is_err()
    );
    limiter.reload(Time::ZERO, &[]);
    let free = limiter.admit(Time::ZERO, caller(3), ONE).unwrap();
    limiter.reload(Time::ZERO, &per_minute(60, 2));
    limiter.cancel_booking(Time::ZERO, caller(2), fingerprint);
    for old in [reservation, free] {
        limiter.settle(Time::ZERO, old, Cost::NOTHING);
    }
    assert_eq!(left(&limiter), 2);
    let mut run = Run::new(&per_minute(60, 2));
    run.limiter = limiter;
    assert!(matches!(run.ask(ANYONE, requests(2)), Outcome::Admitted));
    assert!(matches!(run.ask(ANYONE, ONE), Outcome::Refused(..)));
}
