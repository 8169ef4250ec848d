//! One call: when it goes on, when it gives up, and what it says then.

use std::collections::BTreeMap;
use std::time::Duration;

use llm_engine_retry::{
    Attempts, Backoff, Budget, Failure, Hint, Judgement, Next, Reason, Retry, Stop, VirtualClock,
};

const SECOND: Duration = Duration::from_secs(1);

fn failure(judgement: Judgement) -> Failure {
    Failure {
        what: format!("{judgement:?}"),
        judgement,
    }
}

fn hinted(after: Duration, is_booked: bool) -> Failure {
    failure(Judgement::Hinted(Hint { after, is_booked }))
}

fn started(retry: &Retry, deadline: Option<Duration>) -> Attempts<impl FnMut() -> f64 + use<>> {
    let mut attempts = retry.start(Duration::ZERO, deadline, || 0.5);
    attempts.begin(Duration::ZERO);
    attempts
}

#[test]
fn a_booked_time_is_kept_exactly_and_another_hint_is_the_least_wait() {
    let mut attempts = started(&Retry::default(), None);
    let booked = hinted(Duration::from_millis(17), true);
    assert_eq!(
        attempts.end(Duration::ZERO, booked, None),
        Next::Wait(Duration::from_millis(17))
    );
    // The first random wait is between one second and three: of that what is above one second.
    let shared = hinted(7 * SECOND, false);
    assert_eq!(attempts.end(Duration::ZERO, shared, None), Next::Wait(8 * SECOND));
}

#[test]
fn a_wait_that_is_too_long_is_not_begun() {
    let retry = Retry::default().longest_hint(10 * SECOND);
    let mut attempts = started(&retry, None);
    let too_long = 11 * SECOND;
    assert_eq!(
        attempts.end(Duration::ZERO, hinted(too_long, true), None),
        Next::GiveUp(Reason::HintTooLong(too_long))
    );
}

#[test]
fn nothing_is_begun_at_or_after_the_deadline() {
    let retry = Retry::new(Backoff::constant(3 * SECOND), Stop::never());
    let next = |deadline| {
        let mut attempts = started(&retry, Some(deadline));
        attempts.end(2 * SECOND, failure(Judgement::Transient), None)
    };
    assert_eq!(next(5 * SECOND), Next::GiveUp(Reason::Deadline));
    assert_eq!(next(6 * SECOND), Next::Wait(3 * SECOND));
}

#[test]
fn what_can_not_go_well_is_not_tried_again() {
    for (judgement, reason) in [
        (Judgement::Permanent, Reason::Permanent),
        (Judgement::Committed, Reason::Committed),
    ] {
        let mut attempts = started(&Retry::default(), None);
        assert_eq!(
            attempts.end(Duration::ZERO, failure(judgement), None),
            Next::GiveUp(reason)
        );
    }
}

#[test]
fn refusals_with_a_hint_use_up_attempts_only_if_they_are_to() {
    for (counts, expected) in [(true, Next::GiveUp(Reason::Stopped)), (false, Next::Wait(SECOND))] {
        let retry = Retry::default().count_hinted(counts);
        let mut attempts = started(&retry, None);
        let last = (0..6).map(|_| attempts.end(Duration::ZERO, hinted(SECOND, true), None));
        assert_eq!(last.last(), Some(expected));
    }
}

#[test]
fn only_what_nobody_gave_a_time_for_draws_on_the_budget() {
    let mut budget = Budget::default();
    let retry = Retry::new(Backoff::constant(Duration::ZERO), Stop::never());
    let mut attempts = started(&retry, None);
    for _ in 0..2 * Budget::FLOOR {
        let next = attempts.end(Duration::ZERO, hinted(SECOND, true), Some(&mut budget));
        assert_eq!(next, Next::Wait(SECOND));
    }
    let transient = || failure(Judgement::Transient);
    for _ in 0..Budget::FLOOR {
        let next = attempts.end(Duration::ZERO, transient(), Some(&mut budget));
        assert_eq!(next, Next::Wait(Duration::ZERO));
    }
    assert_eq!(
        attempts.end(Duration::ZERO, transient(), Some(&mut budget)),
        Next::GiveUp(Reason::NoBudget)
    );
}

#[test]
fn in_a_total_outage_at_most_a_fifth_more_is_sent() {
    let mut budget = Budget::default();
    let mut sent = 0_u32;
    let mut due: BTreeMap<(Duration, u32), _> = BTreeMap::new();
    // A hundred calls a second, for a minute.
    const CALLS: u32 = 6000;
    for call in 0..CALLS {
        let mut random = fastrand::Rng::with_seed(call.into());
        let begins = call * SECOND / 100;
        let attempts = Retry::default().start(begins, None, move || random.f64());
        due.insert((begins, call), attempts);
    }
    while let Some(((now, call), mut attempts)) = due.pop_first() {
        attempts.begin(now);
        if attempts.number() == 1 {
            budget.request(now);
        }
        sent += 1;
        let next = attempts.end(now, failure(Judgement::Transient), Some(&mut budget));
        if let Next::Wait(wait) = next {
            due.insert((now + wait, call), attempts);
        }
    }
    println!("{sent} sent of {CALLS} offered");
    assert!(sent <= CALLS * 12 / 10, "{sent}");
    assert!(sent > CALLS * 11 / 10, "retries are not forbidden: {sent}");
}

#[test]
fn giving_up_tells_every_attempt() {
    let retry = Retry::new(
        Backoff::linear(SECOND, SECOND),
        Stop::after_attempts(3) | Stop::before(60 * SECOND),
    );
    let mut clock = VirtualClock::default();
    let gave_up = retry
        .call(
            &mut clock,
            || 0.5,
            |number| Err::<(), _>(format!("failure {number}")),
            |error| Failure {
                what: error.clone(),
                judgement: Judgement::Transient,
            },
        )
        .unwrap_err();
    assert_eq!(gave_up.last, "failure 3");
    assert_eq!(gave_up.reason, Reason::Stopped);
    let told: Vec<_> = gave_up
        .attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.began, attempt.waited, &*attempt.failure))
        .collect();
    assert_eq!(
        told,
        [
            (1, Duration::ZERO, Duration::ZERO, "failure 1"),
            (2, SECOND, SECOND, "failure 2"),
            (3, 3 * SECOND, 2 * SECOND, "failure 3"),
        ]
    );
    assert_eq!(clock.sleeps(), [SECOND, 2 * SECOND]);
}

#[test]
fn no_wait_is_too_long_to_be_said() {
    let waits = [
        Backoff::exponential(SECOND, 10.0),
        Backoff::fibonacci(Duration::MAX),
        Backoff::linear(Duration::MAX, Duration::MAX),
        Backoff::decorrelated(Duration::MAX),
        Backoff::random(Duration::ZERO..=Duration::MAX) + Backoff::constant(Duration::MAX),
    ]
    .map(|backoff| backoff.waits(|| 0.999).nth(1000).unwrap());
    assert_eq!(waits, [Duration::MAX; 5]);
}
