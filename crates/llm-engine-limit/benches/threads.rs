//! Two threads that decide about one quota at the same time, as the workers of a server do: the limiter behind the mutex that
//! the gateway puts it behind.
//!
//! `cargo bench -p llm-engine-limit --bench threads` prints how many requests are admitted and settled each second by one
//! thread and by two, in rounds that take turns, and how long single decisions take while two threads decide, from asking
//! for the lock to having left it. Those are taken in rounds of their own: reading the clock twice costs as much as a decision.

#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use governor::clock::{Clock, QuantaClock, QuantaInstant, Reference};
use hdrhistogram::Histogram;
use llm_engine_limit::{Cost, Limiter, Policy, Quota, Subject, Time, Unit};
use parking_lot::{Mutex, MutexGuard};

const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

/// The limiter and a clock, as threads share them.
struct Shared {
    limiter: Mutex<Limiter>,
    clock: QuantaClock,
    start: QuantaInstant,
}

impl Shared {
    fn now(&self) -> Time {
        Time::from_nanos(self.clock.now().duration_since(self.start).as_u64())
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock()
    }
}

fn main() {
    // Not `cargo bench` but `cargo test`: show only that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (requests, rounds) = if is_bench { (1_000_000, 11) } else { (1_000, 1) };
    let mut one = Vec::new();
    let mut two = Vec::new();
    let mut times = Histogram::<u64>::new(3).expect("three digits");
    for _ in 0..rounds {
        one.push(rate(1, requests));
        two.push(rate(2, requests));
        for of_one_thread in run(2, |shared| times_of(shared, requests)).0 {
            times.add(of_one_thread).expect("both hold any time");
        }
    }
    let [one, two] = [one, two].map(|mut rates| median(&mut rates));
    println!("one quota for all, each request admitted and settled, median of {rounds} rounds");
    println!("one thread     {one:>6.2} M decisions/s");
    println!("two threads    {two:>6.2} M decisions/s in total");
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| times.value_at_quantile(quantile));
    println!("one decision of two threads: median {p50} ns, p99 {p99} ns, p99.9 {p999} ns");
}

/// Millions of decisions a second of all threads together. An admission and a settlement are one decision.
fn rate(threads: u32, requests: u32) -> f64 {
    let (_, elapsed) = run(threads, |shared| {
        for _ in 0..requests {
            decide(shared);
        }
    });
    f64::from(threads * requests) / elapsed.as_secs_f64() / 1e6
}

/// How long each took, in nanoseconds.
fn times_of(shared: &Shared, requests: u32) -> Histogram<u64> {
    let mut times = Histogram::new(3).expect("three digits");
    for _ in 0..requests {
        let begun = shared.now();
        let admitted = shared.limiter().admit(begun, Subject::default(), ONE);
        let ended = shared.now();
        times
            .record(ended.as_nanos() - begun.as_nanos())
            .expect("it grows");
        let reservation = admitted.expect("within the quota");
        shared.limiter().settle(ended, reservation, ONE);
    }
    times
}

fn decide(shared: &Shared) {
    let now = shared.now();
    let admitted = shared.limiter().admit(now, Subject::default(), ONE);
    let reservation = black_box(admitted.expect("within the quota"));
    shared.limiter().settle(now, reservation, ONE);
}

/// What each of the threads came to, and how long all took.
fn run<T: Send>(threads: u32, work: impl Fn(&Shared) -> T + Sync) -> (Vec<T>, Duration) {
    let quota = Quota::new(1_000_000_000, Duration::from_secs(60)).expect("it is exact");
    let policy = Policy {
        name: "all".into(),
        quotas: vec![(Unit::Requests, quota)],
        ..Policy::default()
    };
    let clock = QuantaClock::default();
    let shared = Shared {
        limiter: Mutex::new(Limiter::new(vec![policy])),
        start: clock.now(),
        clock,
    };
    let begin = Barrier::new(threads as usize + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    work(&shared)
                })
            })
            .collect();
        begin.wait();
        let begun = Instant::now();
        let results = workers
            .into_iter()
            .map(|worker| worker.join().expect("nobody panics"));
        (results.collect(), begun.elapsed())
    })
}

/// Sorts the values and returns the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
