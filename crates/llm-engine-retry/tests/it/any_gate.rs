//! Whatever a server says in whatever order, the gate lets nobody wait for ever, and nobody leave while it is held.

use std::time::Duration;

use llm_engine_retry::{Departure, Gate, Hint, Leave, Limits};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Ask,
    /// A verdict about one of the calls that are on their way.
    Admit(prop::sample::Index, Option<Limits>),
    Refuse(prop::sample::Index, Option<Hint>, Option<Limits>),
    Fail(prop::sample::Index),
    ReturnBooked,
    Pass(Duration),
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..5_000_u64).prop_map(Duration::from_micros),
        (0..100_000_u64).prop_map(Duration::from_millis),
    ]
}

fn any_limits() -> impl Strategy<Value = Option<Limits>> {
    let limits = (0..1_000_u64, 1..1_000_000_u32).prop_map(|(remaining, per_thousand_seconds)| Limits {
        remaining,
        per_second: f64::from(per_thousand_seconds) / 1000.0,
    });
    prop::option::of(limits)
}

fn any_hint() -> impl Strategy<Value = Option<Hint>> {
    let hint = (any_duration(), any::<bool>()).prop_map(|(after, is_booked)| Hint { after, is_booked });
    prop::option::of(hint)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        3 => (any::<prop::sample::Index>(), any_limits()).prop_map(|(call, limits)| Step::Admit(call, limits)),
        2 => (any::<prop::sample::Index>(), any_hint(), any_limits())
            .prop_map(|(call, hint, limits)| Step::Refuse(call, hint, limits)),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        1 => Just(Step::ReturnBooked),
        3 => any_duration().prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn it_holds_while_it_is_told_to_and_not_for_ever(steps in prop::collection::vec(any_step(), 1..200)) {
        let mut gate = Gate::default();
        let mut now = Duration::ZERO;
        let mut held_until = Duration::ZERO;
        let mut pending: Vec<Departure> = Vec::new();
        for step in steps {
            match step {
                Step::Ask => match gate.ask(now) {
                    Leave::Now(departure) => {
                        prop_assert!(now >= held_until, "one left at {now:?}, held until {held_until:?}");
                        pending.push(departure);
                    }
                    Leave::At(time) => prop_assert!(time > now),
                    Leave::AfterVerdict => prop_assert!(!pending.is_empty(), "there is no verdict to come"),
                },
                Step::Admit(call, limits) if !pending.is_empty() => {
                    let departure = pending.swap_remove(call.index(pending.len()));
                    gate.admitted(now, departure, limits);
                }
                Step::Refuse(call, hint, limits) if !pending.is_empty() => {
                    let departure = pending.swap_remove(call.index(pending.len()));
                    gate.refused(now, departure, hint, limits);
                    held_until = held_until.max(now + hint.map_or(Duration::ZERO, |hint| hint.after));
                }
                Step::Fail(call) if !pending.is_empty() => {
                    let departure = pending.swap_remove(call.index(pending.len()));
                    gate.failed(departure);
                }
                Step::ReturnBooked => pending.push(gate.leave_booked(now)),
                Step::Pass(time) => now += time,
                _ => {}
            }
        }
        // Once all are back, whoever asks leaves at the time that it is told.
        for departure in pending.drain(..) {
            gate.failed(departure);
        }
        for _ in 0..3 {
            match gate.ask(now) {
                Leave::Now(departure) => {
                    gate.failed(departure);
                    return Ok(());
                }
                Leave::At(time) => now = time,
                Leave::AfterVerdict => prop_assert!(false, "there is no verdict to come"),
            }
        }
        prop_assert!(false, "told again and again to come later");
    }
}
