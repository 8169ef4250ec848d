//! A limiter that threads share behind a lock, under many interleavings: what they see is what some order of their calls,
//! one after the other, explains.

use std::num::NonZeroU32;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Arc, Mutex};

use crate::shapes::{ANYONE, policy};
use llm_engine_limit::{Cost, Limiter, Per, Policy, Quota, Reservation, Time, Unit};

const BURST: u64 = 4;
const MOST_RUNNING: u32 = 2;
const THREADS: usize = 3;
const ROUNDS: usize = 2;
const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Admit { is_admitted: bool },
    Settle { used: u64 },
}

/// A call, and what a common clock showed right before and right after it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    call: Call,
    before: usize,
    after: usize,
}

/// What there is, in terms of nothing but numbers. No time passes, so nothing refills.
#[derive(Debug, Clone, Copy)]
struct Model {
    left: u64,
    running: u32,
}

impl Model {
    /// The state after the call, if this is how it ends in this state.
    fn after(self, call: Call) -> Option<Self> {
        let fits = self.left > 0 && self.running < MOST_RUNNING;
        match call {
            Call::Admit { is_admitted: true } if fits => Some(Self {
                left: self.left - 1,
                running: self.running + 1,
            }),
            Call::Admit { is_admitted: false } if !fits => Some(self),
            Call::Admit { .. } => None,
            Call::Settle { used } => Some(Self {
                left: self.left + 1 - used,
                running: self.running.checked_sub(1)?,
            }),
        }
    }
}

/// Whether some order explains the calls in which none comes before one that had ended when it began.
fn is_explained(model: Model, calls: &[Entry]) -> bool {
    let first_end = calls.iter().map(|entry| entry.after).min();
    calls.is_empty()
        || calls.iter().enumerate().any(|(index, entry)| {
            let may_be_first = first_end.is_some_and(|end| entry.before < end);
            let rest = || [&calls[..index], &calls[index + 1..]].concat();
            may_be_first
                && model
                    .after(entry.call)
                    .is_some_and(|model| is_explained(model, &rest()))
        })
}

fn limiter() -> Limiter {
    Limiter::new(vec![Policy {
        concurrency: NonZeroU32::new(MOST_RUNNING),
        ..policy(
            "shared",
            Per::default(),
            vec![(
                Unit::Requests,
                Quota::new(BURST, Duration::from_secs(3_600)).unwrap(),
            )],
        )
    }])
}

struct Shared {
    limiter: Mutex<Limiter>,
    clock: AtomicUsize,
    running: AtomicUsize,
}

impl Shared {
    fn call<T>(&self, call: impl FnOnce(&mut Limiter) -> T, kind: impl FnOnce(&T) -> Call) -> (T, Entry) {
        let before = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = call(&mut self.limiter.lock().unwrap());
        let after = self.clock.fetch_add(1, Ordering::SeqCst);
        let call = kind(&answer);
        (answer, Entry { call, before, after })
    }

    fn admit(&self) -> (Option<Reservation>, Entry) {
        let admit = |limiter: &mut Limiter| limiter.admit(Time::ZERO, ANYONE, ONE).ok();
        self.call(admit, |answer| Call::Admit {
            is_admitted: answer.is_some(),
        })
    }

    fn settle(&self, reservation: Reservation, used: u64) -> Entry {
        let usage = Cost {
            requests: used,
            ..Cost::NOTHING
        };
        let settle = |limiter: &mut Limiter| limiter.settle(Time::ZERO, reservation, usage);
        self.call(settle, |()| Call::Settle { used }).1
    }
}

fn threads_share_a_limiter() {
    let shared = Arc::new(Shared {
        limiter: Mutex::new(limiter()),
        clock: AtomicUsize::new(0),
        running: AtomicUsize::new(0),
    });
    let threads = (0..THREADS).map(|thread| {
        let shared = Arc::clone(&shared);
        shuttle::thread::spawn(move || {
            let mut calls = Vec::new();
            for round in 0..ROUNDS {
                let (reservation, entry) = shared.admit();
                calls.push(entry);
                let Some(reservation) = reservation else { continue };
                let running = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(running <= usize::try_from(MOST_RUNNING).unwrap());
                shuttle::thread::yield_now();
                shared.running.fetch_sub(1, Ordering::SeqCst);
                // Some of them have used nothing.
                let used = u64::from((thread + round) % 2 == 0);
                calls.push(shared.settle(reservation, used));
            }
            calls
        })
    });
    let threads: Vec<_> = threads.collect();
    let calls: Vec<Entry> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let full = Model {
        left: BURST,
        running: 0,
    };
    assert!(is_explained(full, &calls), "no order explains {calls:?}");
    let used: u64 = calls
        .iter()
        .map(|entry| match entry.call {
            Call::Settle { used } => used,
            Call::Admit { .. } => 0,
        })
        .sum();
    let levels = shared.limiter.lock().unwrap().levels(Time::ZERO, ANYONE);
    let remaining: Vec<_> = levels.iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [BURST - used, u64::from(MOST_RUNNING)]);
}

#[test]
fn what_threads_see_is_explained_by_some_order_of_their_calls() {
    shuttle::check_random(threads_share_a_limiter, 400);
    shuttle::check_pct(threads_share_a_limiter, 400, 3);
}

#[test]
fn an_order_that_no_limiter_would_give_is_found_out() {
    let admitted = |before| Entry {
        call: Call::Admit { is_admitted: true },
        before,
        after: before + 1,
    };
    let full = Model {
        left: BURST,
        running: 0,
    };
    assert!(is_explained(full, &[admitted(0), admitted(2)]));
    assert!(!is_explained(full, &[admitted(0), admitted(2), admitted(4)]));
    let refused = Entry {
        call: Call::Admit { is_admitted: false },
        before: 0,
        after: 1,
    };
    assert!(!is_explained(full, &[refused, admitted(2), admitted(4)]));
}
