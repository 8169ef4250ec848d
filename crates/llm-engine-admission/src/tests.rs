//! The whole of it, by hand. What it does to a model over time is in the tests of `llm-engine-overload`.

use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_limit::{Fingerprint, Subject, Time};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

use crate::{Admission, AdmissionSetup, Arrival, Class, Limit, Place, Queued, Reason, Request, Turn};

fn admission(limit: u32) -> Admission {
    Admission::new(AdmissionSetup {
        limit: Limit::Fixed(NonZeroU32::new(limit).unwrap()),
        wait: Duration::from_secs(2),
        booked_wait: Duration::from_secs(3),
        queue: 10_000,
    })
}

fn at(seconds: f64) -> Time {
    Time::ZERO + Duration::from_secs_f64(seconds)
}

fn request(caller: u32, digest: u64) -> Request {
    Request {
        subject: Subject {
            caller,
            ..Subject::default()
        },
        class: Class::Interactive,
        input_tokens: 500,
        most_output_tokens: 250,
        deadline: None,
        fingerprint: Some(Fingerprint {
            digest,
            is_unique: true,
        }),
    }
}

fn place(admission: &mut Admission, now: Time, request: &Request) -> Place {
    match admission.arrive(now, request) {
        Ok(Arrival::Place(place)) => place,
        other => panic!("{other:?}"),
    }
}

fn queued(admission: &mut Admission, now: Time, request: &Request) -> Queued {
    match admission.arrive(now, request) {
        Ok(Arrival::Queued(queued)) => queued,
        other => panic!("{other:?}"),
    }
}

/// One place, through which a request of 1,000 tokens of work goes in each second.
fn busy() -> (Admission, Place, Time) {
    let mut admission = admission(1);
    let mut held = place(&mut admission, at(0.0), &request(9, 0));
    for second in 1..=100 {
        let now = at(f64::from(second));
        admission.end(now, held, 500, 250);
        held = place(&mut admission, now, &request(9, 0));
    }
    (admission, held, at(100.0))
}

#[test]
fn as_many_run_as_may_and_the_rest_wait_for_their_turn() {
    let mut admission = admission(2);
    let first = place(&mut admission, at(0.0), &request(1, 1));
    let _second = place(&mut admission, at(0.0), &request(1, 2));
    let third = queued(&mut admission, at(0.0), &request(1, 3));
    assert_eq!(admission.turn(at(0.1)), None);
    admission.end(at(0.2), first, 500, 10);
    let Some(Turn::Place(whose, _third)) = admission.turn(at(0.2)) else {
        panic!("a place is free");
    };
    assert_eq!(whose, third);
    assert_eq!(admission.turn(at(0.2)), None);
    assert_eq!(
        (admission.standing().in_flight, admission.standing().queued),
        (2, 0)
    );
}

#[test]
fn who_would_wait_for_too_long_is_refused_at_once_with_a_time_of_its_own() {
    let (mut admission, _held, now) = busy();
    // Each is a second of work: two seconds fit.
    queued(&mut admission, now, &request(1, 1));
    queued(&mut admission, now, &request(1, 2));
    queued(&mut admission, now, &request(1, 3));
    let told: Vec<_> = (4..10)
        .map(|digest| admission.arrive(now, &request(1, digest)).unwrap_err())
        .collect();
    assert!(
        told.iter()
            .all(|told| told.booked && told.reason == Reason::EstimatedWait)
    );
    assert!(told.is_sorted_by(|one, next| one.wait < next.wait), "{told:?}");
    // Another caller has its share, whatever the first one has queued.
    queued(&mut admission, now, &request(2, 20));
}

#[test]
fn who_comes_at_its_time_is_let_in_although_others_are_not() {
    let (mut admission, _held, now) = busy();
    for digest in 1..=3 {
        queued(&mut admission, now, &request(1, digest));
    }
    let told = admission.arrive(now, &request(1, 4)).unwrap_err();
    // One that asks again before its time is told the same.
    let again = admission.arrive(now + told.wait / 2, &request(1, 4)).unwrap_err();
    assert_eq!(again.wait, told.wait - told.wait / 2);
    let due = now + told.wait;
    assert!(admission.arrive(due, &request(1, 5)).is_err());
    queued(&mut admission, due, &request(1, 4));
}

#[test]
fn nobody_waits_beyond_its_deadline_or_for_longer_than_was_estimated() {
    let (mut admission, _held, now) = busy();
    queued(&mut admission, now, &request(1, 1));
    let soon = Request {
        deadline: Some(now + Duration::from_millis(500)),
        ..request(1, 2)
    };
    assert_eq!(admission.arrive(now, &soon).unwrap_err().reason, Reason::Deadline);
    // The one that runs does not end.
    let mut refused = None;
    while let (None, Some(next)) = (&refused, admission.next_turn()) {
        refused = admission.turn(next).map(|turn| (next, turn));
    }
    let (when, turn) = refused.unwrap();
    assert!(matches!(turn, Turn::Refused(_, saturated) if saturated.reason == Reason::Waited));
    assert_eq!(when.since(now), Duration::from_secs(3));
}

#[test]
fn a_batch_has_its_turn_when_nobody_waits() {
    let (mut admission, held, now) = busy();
    let batch = Request {
        class: Class::Batch,
        ..request(1, 1)
    };
    let last = queued(&mut admission, now, &batch);
    let first = queued(&mut admission, now, &request(2, 2));
    admission.end(now, held, 500, 250);
    let mut order = Vec::new();
    while let Some(Turn::Place(whose, place)) = admission.turn(now) {
        order.push(whose);
        admission.end(now, place, 500, 250);
    }
    assert_eq!(order, [first, last]);
}

#[test]
fn of_two_callers_the_one_that_was_served_less_has_its_turn() {
    let (mut admission, mut held, now) = busy();
    let mut runs = 500;
    let mut served = [0, 0];
    // One asks for much at a time, the other for little.
    let sizes = [1_000, 100];
    let mut waiting = std::collections::HashMap::new();
    for step in 0..2_000_u32 {
        let now = now + Duration::from_millis(u64::from(step) * 500);
        for caller in [0, 1] {
            while waiting.values().filter(|(of, _)| *of == caller).count() < 2 {
                let asks = Request {
                    input_tokens: sizes[caller],
                    most_output_tokens: 1,
                    fingerprint: None,
                    ..request(u32::try_from(caller).unwrap(), 0)
                };
                let Ok(Arrival::Queued(key)) = admission.arrive(now, &asks) else {
                    break;
                };
                waiting.insert(key, (caller, sizes[caller]));
            }
        }
        admission.end(now, held, runs, 1);
        held = loop {
            match admission.turn(now) {
                Some(Turn::Place(key, place)) => {
                    let (caller, size) = waiting.remove(&key).unwrap();
                    served[caller] += size;
                    runs = size;
                    break place;
                }
                Some(Turn::Refused(key, _)) => drop(waiting.remove(&key)),
                None => panic!("somebody waits"),
            }
        };
    }
    let ratio = f64::from(u32::try_from(served[0]).unwrap()) / f64::from(u32::try_from(served[1]).unwrap());
    assert!((0.9..1.1).contains(&ratio), "{served:?}");
}

#[test]
fn what_a_deployment_tells_of_its_queue_counts_for_two_seconds() {
    let mut admission = Admission::new(AdmissionSetup {
        limit: Limit::Adaptive {
            most: NonZeroU32::MAX,
        },
        wait: Duration::from_secs(2),
        booked_wait: Duration::from_secs(3),
        queue: 10_000,
    });
    // It is learned how soon first tokens come.
    for n in 0..60 {
        let now = at(f64::from(n) / 10.0);
        let place = place(&mut admission, now, &request(n, 0));
        admission.sent(now, &place, 0);
        admission.first_token(now + Duration::from_millis(50), &place);
        admission.end(now + Duration::from_millis(60), place, 500, 10);
    }
    let places: Vec<Place> = (0..20)
        .map(|n| place(&mut admission, at(6.0), &request(n, 0)))
        .collect();
    for place in &places {
        admission.sent(at(6.0), place, 0);
        admission.first_token(at(6.1), place);
    }
    let mut limits = Vec::new();
    for look in 13..24 {
        let waiting = if look < 18 { 0 } else { 12 };
        admission.reported(at(f64::from(look) / 2.0), 0, waiting);
        limits.push(admission.standing().limit);
    }
    let told = limits[limits.len() - 1];
    assert!(told < 15, "{limits:?}");
    // It tells nothing any more, and what it said is old.
    for look in 30..60 {
        admission.turn(at(f64::from(look) / 2.0));
    }
    assert!(admission.standing().limit >= told);
}

#[test]
fn ten_thousand_wait_and_leave_without_a_trace() {
    let mut admission = admission(10_000);
    let places: Vec<Place> = (0..10_000)
        .map(|n| place(&mut admission, at(0.0), &request(n % 1_000, u64::from(n))))
        .collect();
    let waiting: Vec<Queued> = (0..9_999)
        .map(|n| queued(&mut admission, at(0.0), &request(n, 0)))
        .collect();
    for (index, key) in waiting.into_iter().enumerate() {
        if index % 2 == 0 {
            admission.cancel(key);
            admission.cancel(key);
        }
    }
    for place in places {
        admission.end(at(1.0), place, 1, 1);
    }
    let mut turns = 0;
    while let Some(Turn::Place(_, place)) = admission.turn(at(1.0)) {
        admission.end(at(1.0), place, 0, 0);
        turns += 1;
    }
    let standing = admission.standing();
    assert_eq!((turns, standing.in_flight, standing.queued), (4_999, 0, 0));
}

/// What a gateway may do, in any order.
#[derive(Debug, Clone)]
enum Call {
    Arrive(u32, u64, bool),
    Send(usize),
    FirstToken(usize),
    End(usize, u64),
    Cancel(usize),
    Wait(u64),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        (0..5_u32, 0..40_u64, any::<bool>())
            .prop_map(|(caller, digest, batch)| Call::Arrive(caller, digest, batch)),
        any::<usize>().prop_map(Call::Send),
        any::<usize>().prop_map(Call::FirstToken),
        (any::<usize>(), 0..3_000_u64).prop_map(|(which, output)| Call::End(which, output)),
        any::<usize>().prop_map(Call::Cancel),
        (0..3_000_u64).prop_map(Call::Wait),
        Just(Call::Wait(20)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_place_is_lost_or_given_twice(calls in prop::collection::vec(call(), 1..400)) {
        let mut admission = Admission::new(AdmissionSetup {
            limit: Limit::Adaptive { most: NonZeroU32::new(8).unwrap() },
            wait: Duration::from_secs(2),
            booked_wait: Duration::from_secs(3),
            queue: 20,
        });
        let (mut now, mut places, mut waiting) = (Time::ZERO, Vec::new(), Vec::new());
        for call in calls {
            match call {
                Call::Arrive(caller, digest, batch) => {
                    let class = if batch { Class::Batch } else { Class::Interactive };
                    match admission.arrive(now, &Request { class, ..request(caller, digest) }) {
                        Ok(Arrival::Place(place)) => places.push(place),
                        Ok(Arrival::Queued(key)) => waiting.push((key, class)),
                        Err(saturated) => assert!(saturated.wait > Duration::ZERO),
                    }
                }
                Call::Send(which) if !places.is_empty() => admission.sent(now, &places[which % places.len()], 0),
                Call::FirstToken(which) if !places.is_empty() => {
                    admission.first_token(now, &places[which % places.len()]);
                }
                Call::End(which, output) if !places.is_empty() => {
                    let place = places.swap_remove(which % places.len());
                    admission.end(now, place, 500, output);
                }
                Call::Cancel(which) if !waiting.is_empty() => {
                    admission.cancel(waiting.swap_remove(which % waiting.len()).0);
                }
                Call::Wait(millis) => now = now + Duration::from_millis(millis),
                _ => {}
            }
            while let Some(turn) = admission.turn(now) {
                let key = match turn {
                    Turn::Place(key, place) => {
                        places.push(place);
                        key
                    }
                    Turn::Refused(key, _) => key,
                };
                let position = waiting.iter().position(|(other, _)| *other == key);
                waiting.swap_remove(position.expect("it waits"));
            }
            let standing = admission.standing();
            assert_eq!((standing.in_flight, standing.queued), (places.len(), waiting.len()));
            assert!((2..=8).contains(&standing.limit));
            let somebody_waits = waiting.iter().any(|(_, class)| *class == Class::Interactive);
            assert!(!somebody_waits || standing.in_flight >= standing.limit);
            // Rows leave a quarter free.
            let all_but_free = standing.limit - standing.limit.div_ceil(4);
            assert!(waiting.is_empty() || standing.in_flight >= all_but_free.max(1));
        }
    }
}
