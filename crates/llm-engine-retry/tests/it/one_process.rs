//! Many calls of one process, through one gate, in virtual time: how many calls the server sees, and how long it takes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use llm_engine_retry::{Attempts, Departure, Failure, Gate, Hint, Judgement, Leave, Next, Reason, Retry};

use crate::server::{Bucket, Says, Verdict, Window};

/// What became of all calls.
#[derive(Debug)]
struct Outcome {
    succeeded: usize,
    calls: usize,
    last: Duration,
    gave_up: Vec<Reason>,
}

enum Event {
    /// The call arrives at the server.
    Arrives(usize, Departure),
    /// The server's answer arrives.
    Answered(usize, Departure, Verdict),
    /// The call has waited for its next attempt.
    Returns(usize),
    /// It may be that the first in line can leave.
    Wakes,
}

struct Process<S> {
    server: S,
    gate: Gate,
    random: Rng,
    /// One way.
    network: Duration,
    /// From admission to the answer.
    work: Duration,
    attempts: Vec<Attempts<Box<dyn FnMut() -> f64>>>,
    hints: Vec<Option<Hint>>,
    line: VecDeque<usize>,
    wakes_at: Option<Duration>,
    events: BinaryHeap<Reverse<(Duration, usize)>>,
    all: Vec<Option<Event>>,
    outcome: Outcome,
}

impl<S: FnMut(Duration, bool) -> Verdict> Process<S> {
    fn run(calls: usize, seed: u64, network: Duration, work: Duration, server: S) -> Outcome {
        let random = Rng::with_seed(seed);
        let attempts = (0..calls).map(|call| {
            let mut random = Rng::with_seed(seed ^ call as u64);
            let random: Box<dyn FnMut() -> f64> = Box::new(move || random.f64());
            Retry::default().start(Duration::ZERO, None, random)
        });
        let mut process = Self {
            server,
            gate: Gate::default(),
            random,
            network,
            work,
            attempts: attempts.collect(),
            hints: vec![None; calls],
            line: (0..calls).collect(),
            wakes_at: None,
            events: BinaryHeap::new(),
            all: Vec::new(),
            outcome: Outcome {
                succeeded: 0,
                calls: 0,
                last: Duration::ZERO,
                gave_up: Vec::new(),
            },
        };
        process.leave(Duration::ZERO);
        while let Some(Reverse((now, index))) = process.events.pop() {
            let event = process.all[index].take().unwrap();
            process.happen(now, event);
            process.leave(now);
        }
        assert!(
            process.line.is_empty(),
            "{} stand in line for ever",
            process.line.len()
        );
        process.outcome
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.events.push(Reverse((time, self.all.len())));
        self.all.push(Some(event));
    }

    /// Networks are not exact: up to a tenth more.
    fn on_the_way(&mut self) -> Duration {
        self.network.mul_f64(1.0 + 0.1 * self.random.f64())
    }

    fn leave(&mut self, now: Duration) {
        while let Some(call) = self.line.front().copied() {
            match self.gate.ask(now) {
                Leave::Now(departure) => {
                    self.line.pop_front();
                    self.send(now, call, departure);
                }
                Leave::At(time) => {
                    assert!(time > now);
                    if self.wakes_at != Some(time) {
                        self.wakes_at = Some(time);
                        self.at(time, Event::Wakes);
                    }
                    break;
                }
                Leave::AfterVerdict => break,
            }
        }
    }

    fn send(&mut self, now: Duration, call: usize, departure: Departure) {
        self.attempts[call].begin(now);
        let arrives = now + self.on_the_way();
        self.at(arrives, Event::Arrives(call, departure));
    }

    fn happen(&mut self, now: Duration, event: Event) {
        match event {
            Event::Wakes => {}
            Event::Arrives(call, departure) => {
                self.outcome.calls += 1;
                let is_booked = self.hints[call].is_some_and(|hint| hint.is_booked);
                let verdict = (self.server)(now, is_booked);
                let work = if verdict.is_admitted {
                    self.work
                } else {
                    Duration::ZERO
                };
                let answered = now + work + self.on_the_way();
                self.at(answered, Event::Answered(call, departure, verdict));
            }
            Event::Answered(_, departure, verdict) if verdict.is_admitted => {
                self.gate.admitted(now, departure, verdict.limits);
                self.outcome.succeeded += 1;
                self.outcome.last = self.outcome.last.max(now);
            }
            Event::Answered(call, departure, verdict) => {
                self.gate.refused(now, departure, verdict.hint, verdict.limits);
                self.hints[call] = verdict.hint;
                let failure = Failure {
                    what: "429".into(),
                    judgement: verdict.hint.map_or(Judgement::Transient, Judgement::Hinted),
                };
                match self.attempts[call].end(now, failure, None) {
                    Next::Wait(wait) => self.at(now + wait, Event::Returns(call)),
                    Next::GiveUp(reason) => self.outcome.gave_up.push(reason),
                }
            }
            Event::Returns(call) => {
                if self.hints[call].is_some_and(|hint| hint.is_booked) {
                    let departure = self.gate.leave_booked(now);
                    self.send(now, call, departure);
                } else {
                    self.line.push_back(call);
                }
            }
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// The bounds hold for each of these seeds.
const SEEDS: u64 = 10;

fn bucket(calls: usize, burst: f64, says: Says, network: Duration, work: Duration) -> Vec<(f64, f64)> {
    let optimum = (calls as f64 - burst) / 10.0;
    let runs = (0..SEEDS).map(|seed| {
        let mut bucket = Bucket::new(10.0, burst, says);
        let outcome = Process::run(calls, seed, network, work, |now, is_booked| {
            bucket.ask(now, is_booked)
        });
        assert_eq!(outcome.succeeded, calls, "{says:?}: {:?}", outcome.gave_up);
        let ratio = outcome.last.as_secs_f64() / (optimum + work.as_secs_f64());
        (outcome.calls as f64 / calls as f64, ratio)
    });
    let runs: Vec<_> = runs.collect();
    for (calls, time) in &runs {
        println!("burst {burst} {says:?} network {network:?} work {work:?}: {calls:.3} calls, {time:.3}x");
    }
    runs
}

#[test]
fn a_thousand_calls_keep_the_pace_that_the_server_names() {
    for (network, work) in [
        (MILLISECOND, Duration::ZERO),
        (20 * MILLISECOND, Duration::from_secs(3)),
    ] {
        for (calls, time) in bucket(1000, 10.0, Says::Everything, network, work) {
            assert!(calls <= 1.05, "{calls} calls each");
            assert!(time <= 1.02, "{time} times the optimum");
        }
    }
}

#[test]
fn even_without_any_burst() {
    for (calls, time) in bucket(1000, 1.0, Says::Everything, MILLISECOND, Duration::ZERO) {
        assert!(calls <= 1.05, "{calls} calls each");
        assert!(time <= 1.02, "{time} times the optimum");
    }
}

#[test]
fn a_pace_that_is_not_named_is_learned() {
    for says in [Says::WhenThereIsRoom, Says::WholeSeconds, Says::Nothing] {
        for (calls, time) in bucket(1000, 10.0, says, MILLISECOND, Duration::ZERO) {
            assert!(calls <= 1.1, "{says:?}: {calls} calls each");
            assert!(time <= 1.1, "{says:?}: {time} times the optimum");
        }
    }
}

#[test]
fn a_window_in_which_refusals_count_is_used_as_soon_as_it_opens() {
    let minute = Duration::from_secs(60);
    for says in [Says::WhenThereIsRoom, Says::Nothing] {
        for seed in 0..SEEDS {
            let mut window = Window {
                calls: 60,
                length: minute,
                says,
                number: 0,
                counted: 0,
            };
            let outcome = Process::run(180, seed, MILLISECOND, Duration::ZERO, |now, _| window.ask(now));
            let time = outcome.last.as_secs_f64() / (2 * minute).as_secs_f64();
            println!("window, {says:?}: {} calls, {time:.3}x", outcome.calls);
            assert_eq!(outcome.succeeded, 180, "{says:?}: {:?}", outcome.gave_up);
            // When it opens must be found out by trying, if nobody says it.
            let most = if says == Says::Nothing { 1.15 } else { 1.05 };
            assert!(time <= most, "{says:?}: {time} times the optimum");
        }
    }
}

#[test]
fn a_server_without_limits_is_not_held_back_for_long() {
    let second = Duration::from_secs(1);
    let admit = |_, _| Verdict {
        is_admitted: true,
        hint: None,
        limits: None,
    };
    let outcome = Process::run(2000, 0, MILLISECOND, second, admit);
    assert_eq!((outcome.succeeded, outcome.calls), (2000, 2000));
    // Twice as many in each second, from 20.
    assert!(outcome.last <= 8 * second, "{:?}", outcome.last);
}

#[test]
fn what_was_admitted_counts_in_whatever_order_it_becomes_known() {
    let mut gate = Gate::default();
    let (start, minute) = (Duration::ZERO, Duration::from_secs(60));
    let leave_all = |gate: &mut Gate, now| -> Vec<Departure> {
        std::iter::from_fn(|| match gate.ask(now) {
            Leave::Now(departure) => Some(departure),
            _ => None,
        })
        .collect()
    };
    let mut left = leave_all(&mut gate, start);
    let refused = left.pop().unwrap();
    let admitted = left.len();
    let late = left.split_off(5);
    left.into_iter()
        .for_each(|early| gate.admitted(start, early, None));
    let hint = Hint {
        after: minute,
        is_booked: false,
    };
    gate.refused(start, refused, Some(hint), None);
    late.into_iter().for_each(|late| gate.admitted(start, late, None));

    let first = leave_all(&mut gate, minute).pop().unwrap();
    gate.admitted(minute, first, None);
    assert_eq!(1 + leave_all(&mut gate, minute).len(), admitted);
}
