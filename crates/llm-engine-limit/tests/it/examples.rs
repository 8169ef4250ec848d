//! Numbers that a reader can check by hand.

use std::time::Duration;

use crate::shapes::{ANYONE, only, policy};
use crate::trace::{Outcome, Run, Used};
use llm_engine_limit::{Cost, Counted, Limiter, Per, Quota, Refusal, Subject, Time, Unit};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: Cost = Cost {
    requests: 1,
    input_tokens: 0,
    output_tokens: 0,
    ..Cost::NOTHING
};

fn output(tokens: u64) -> Cost {
    Cost {
        requests: 1,
        input_tokens: 0,
        output_tokens: tokens,
        ..Cost::NOTHING
    }
}

fn wait(outcome: Outcome) -> Duration {
    match outcome {
        Outcome::Refused(.., Refusal::NotNow(refusal)) => {
            assert!(refusal.exact);
            refusal.wait
        }
        outcome => panic!("not refused: {outcome:?}"),
    }
}

#[test]
fn of_300_at_once_on_100_a_minute_100_are_admitted_and_the_next_every_600_ms() {
    let mut run = Run::new(&only(Unit::Requests, Quota::new(100, MINUTE).unwrap()));
    let outcomes: Vec<_> = (0..300).map(|_| run.ask(ANYONE, ONE)).collect();
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Admitted))
            .count(),
        100
    );
    for outcome in outcomes.into_iter().skip(100) {
        assert_eq!(wait(outcome), Duration::from_millis(600));
    }
    run.settle_all(Used::All);
    // Whoever wants k more waits k times as long.
    for more in 1..=100 {
        let many = Cost {
            requests: more,
            ..Cost::NOTHING
        };
        assert_eq!(wait(run.ask(ANYONE, many)), Duration::from_millis(600 * more));
    }
    // In 2.5 s four more are admitted: at 0.6, 1.2, 1.8 and 2.4 s.
    let mut admitted = 0;
    for millis in 0..=2_500 {
        run.clock = Time::after_epoch(Duration::from_millis(millis));
        if let Outcome::Admitted = run.ask(ANYONE, ONE) {
            assert!(millis.is_multiple_of(600));
            admitted += 1;
        }
    }
    assert_eq!(admitted, 4);
}

#[test]
fn of_150_streams_of_60_tokens_on_3000_a_minute_50_are_admitted_and_the_next_after_1_200_ms() {
    let mut run = Run::new(&only(Unit::OutputTokens, Quota::new(3_000, MINUTE).unwrap()));
    let outcomes: Vec<_> = (0..150).map(|_| run.ask(ANYONE, output(60))).collect();
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Admitted))
            .count(),
        50
    );
    for outcome in outcomes.into_iter().skip(50) {
        assert_eq!(wait(outcome), Duration::from_millis(1_200));
    }
    // Half of what the first one reserved is enough for half of another, at once.
    run.settle(0, output(30));
    assert!(matches!(run.ask(ANYONE, output(31)), Outcome::Refused(..)));
    assert!(matches!(run.ask(ANYONE, output(30)), Outcome::Admitted));
    run.clock = run.clock + Duration::from_millis(1_200);
    assert!(matches!(run.ask(ANYONE, output(60)), Outcome::Admitted));
    assert!(matches!(run.ask(ANYONE, output(1)), Outcome::Refused(..)));
}

#[test]
fn two_streams_cut_off_at_once_give_back_everything_in_either_order() {
    for first in [0, 1] {
        let mut run = Run::new(&only(Unit::OutputTokens, Quota::new(100, MINUTE).unwrap()));
        for _ in 0..2 {
            assert!(matches!(run.ask(ANYONE, output(50)), Outcome::Admitted));
        }
        run.settle(first, Cost::NOTHING);
        run.settle(0, Cost::NOTHING);
        assert_eq!(
            run.levels(ANYONE)[0].remaining,
            100,
            "the one at {first} was cut off first"
        );
    }
}

#[test]
fn a_refund_does_not_bring_back_what_would_have_been_lost_to_a_full_bucket() {
    // One a second, at most ten. Ten are reserved and nothing is used; after ten seconds the bucket is full anyway.
    let quota = Quota::with_burst(60, MINUTE, 10).unwrap();
    let mut run = Run::new(&only(Unit::OutputTokens, quota));
    assert!(matches!(run.ask(ANYONE, output(10)), Outcome::Admitted));
    run.clock = run.clock + Duration::from_secs(10);
    // Another takes all ten; giving back the first ten now would make it twenty at one instant.
    assert!(matches!(run.ask(ANYONE, output(10)), Outcome::Admitted));
    run.settle(0, Cost::NOTHING);
    assert_eq!(run.levels(ANYONE)[0].remaining, 0);
    assert!(matches!(run.ask(ANYONE, output(1)), Outcome::Refused(..)));
}

#[test]
fn one_refund_is_not_paid_twice() {
    // One a second, at most ten: four and six are reserved at once, and nothing of them is used. Eight seconds later
    // two are still missing, and two is all that both together may give back.
    let quota = Quota::with_burst(60, MINUTE, 10).unwrap();
    let mut run = Run::new(&only(Unit::OutputTokens, quota));
    assert!(matches!(run.ask(ANYONE, output(4)), Outcome::Admitted));
    assert!(matches!(run.ask(ANYONE, output(6)), Outcome::Admitted));
    run.clock = run.clock + Duration::from_secs(8);
    assert!(matches!(run.ask(ANYONE, output(8)), Outcome::Admitted));
    run.settle(0, Cost::NOTHING);
    run.settle(1, Cost::NOTHING);
    assert_eq!(run.levels(ANYONE)[0].remaining, 2);
}

#[test]
fn overruns_are_charged_into_debt() {
    let mut run = Run::new(&only(Unit::OutputTokens, Quota::new(60, MINUTE).unwrap()));
    assert!(matches!(run.ask(ANYONE, output(10)), Outcome::Admitted));
    run.settle(0, output(100));
    assert_eq!(wait(run.ask(ANYONE, output(1))), Duration::from_secs(41));
}

#[test]
fn a_strict_hundred_a_minute_with_ten_at_once_is_ninety_a_minute_and_ten() {
    let mut run = Run::new(&only(Unit::Requests, Quota::strict(100, MINUTE, 10).unwrap()));
    let mut admitted = 0;
    for millis in 0..60_000 {
        run.clock = Time::after_epoch(Duration::from_millis(millis));
        while let Outcome::Admitted = run.ask(ANYONE, ONE) {
            admitted += 1;
        }
    }
    assert_eq!(admitted, 99, "the hundredth comes with the end of the minute");
    run.clock = Time::after_epoch(MINUTE);
    assert!(matches!(run.ask(ANYONE, ONE), Outcome::Admitted));
}

#[test]
fn a_burst_of_the_limit_lets_almost_twice_the_limit_into_one_window() {
    let mut run = Run::new(&only(Unit::Requests, Quota::new(100, MINUTE).unwrap()));
    let mut admitted = 0;
    for millis in 0..60_000 {
        run.clock = Time::after_epoch(Duration::from_millis(millis));
        while let Outcome::Admitted = run.ask(ANYONE, ONE) {
            admitted += 1;
        }
    }
    assert_eq!(admitted, 199);
}

#[test]
fn input_and_output_are_counted_apart_and_together() {
    let quotas = vec![
        (Unit::InputTokens, Quota::new(100, MINUTE).unwrap()),
        (Unit::OutputTokens, Quota::new(50, MINUTE).unwrap()),
        (Unit::Tokens, Quota::new(120, MINUTE).unwrap()),
    ];
    let mut run = Run::new(&[policy("tokens", Per::default(), quotas)]);
    let cost = Cost {
        requests: 1,
        input_tokens: 60,
        output_tokens: 40,
        ..Cost::NOTHING
    };
    assert!(matches!(run.ask(ANYONE, cost), Outcome::Admitted));
    let remaining: Vec<_> = run.levels(ANYONE).iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [40, 10, 20]);
    // More input than was thought and less output.
    run.settle(
        0,
        Cost {
            requests: 1,
            input_tokens: 70,
            output_tokens: 10,
            ..Cost::NOTHING
        },
    );
    let remaining: Vec<_> = run.levels(ANYONE).iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [30, 40, 40]);
}

#[test]
fn a_request_without_policies_is_admitted() {
    let mut limiter = Limiter::new(vec![]);
    let huge = Cost {
        requests: u64::MAX,
        input_tokens: u64::MAX,
        output_tokens: u64::MAX,
        ..Cost::NOTHING
    };
    let reservation = limiter.admit(Time::ZERO, ANYONE, huge).unwrap();
    limiter.settle(Time::END, reservation, Cost::NOTHING);
    assert_eq!(limiter.levels(Time::ZERO, ANYONE), []);
}

#[test]
fn quotas_are_called_as_a_person_would() {
    for (window, name) in [
        (MINUTE, "5 output tokens per minute"),
        (Duration::from_secs(1), "5 output tokens per second"),
        (Duration::from_secs(30), "5 output tokens per 30 seconds"),
        (Duration::from_millis(1_500), "5 output tokens per 1.5 seconds"),
        (Duration::from_secs(7_200), "5 output tokens per 2 hours"),
        (Duration::from_secs(30 * 86_400), "5 output tokens per 30 days"),
    ] {
        assert_eq!(
            Counted::PerWindow {
                unit: Unit::OutputTokens,
                window
            }
            .amount(5),
            name
        );
    }
    assert_eq!(Counted::Concurrency.amount(1), "1 request at the same time");
    assert_eq!(Counted::Concurrency.amount(2), "2 requests at the same time");
}

#[test]
fn announcing_a_request_changes_nothing_whosever_it_is() {
    let per = Per {
        caller: true,
        ..Per::default()
    };
    let two = || vec![(Unit::Requests, Quota::new(2, MINUTE).unwrap())];
    let mut limiter = Limiter::new(vec![
        policy("caller", per, two()),
        policy("all", Per::default(), two()),
    ]);
    for caller in [0, 5, u32::MAX] {
        limiter.prepare(&Subject { caller, ..ANYONE });
    }
    for left in [2, 1, 0] {
        limiter.prepare(&ANYONE);
        let levels = limiter.levels(Time::ZERO, ANYONE);
        assert!(levels.iter().all(|level| level.remaining == left), "{levels:?}");
        let admitted = limiter.admit(Time::ZERO, ANYONE, ONE);
        assert_eq!(admitted.is_ok(), left > 0);
    }
}
