//! What one decision costs with a million keys, beside `governor`'s keyed limiter, on one core.
//!
//! `cargo bench -p llm-engine-limit --bench admit` prints, for every contestant, the median over the rounds and its ratio to
//! `governor` as it comes; `-- --keys=10000` takes fewer keys, `-- refused` only contestants with that in their name. The
//! contestants take turns within each round, so that whatever else the machine does meets all of them. Every operation
//! visits another key, in an order that was shuffled beforehand.
//!
//! A decision of `governor` is one `check_key`, in which it reads its own clock. Beside it stand our decision alone, which is
//! the same work, and the decision with the settlement that follows it; the caller reads the clock once for both. Before it
//! reads the clock, it says whose request it is, as the gateway does. All are measured with `governor`'s default clock, with that
//! of the standard library, which is slower, and with none.

#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, FakeRelativeClock, MonotonicClock, QuantaClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as TheirQuota, RateLimiter};
use llm_engine_limit::{Cost, Limiter, Match, Per, Policy, Quota, Subject, Time, Unit};
use rustix::time::ClockId;

const KEYS: u32 = 1_000_000;
const ROUNDS: usize = 11;
const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: u32 = 100;
/// What a request costs: within every quota here for as long as the benchmark runs.
const COST: Cost = Cost {
    requests: 1,
    input_tokens: 1,
    output_tokens: 1,
    ..Cost::NOTHING
};

/// Visits every key once, and tells how long that took.
type Visit = Box<dyn FnMut(&[u32]) -> f64>;

struct Contestant {
    name: &'static str,
    visit: Visit,
    nanos_per_operation: Vec<f64>,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (options, names): (Vec<_>, Vec<_>) = arguments
        .into_iter()
        .partition(|argument| argument.starts_with('-'));
    // Not `cargo bench` but `cargo test`: show only that it runs.
    let is_bench = options.iter().any(|option| option == "--bench");
    let keys = options.iter().find_map(|option| option.strip_prefix("--keys="));
    let keys = keys.map_or(KEYS, |keys| keys.parse().expect("--keys is a number"));
    let (keys, rounds) = if is_bench { (keys, ROUNDS) } else { (1_000, 1) };
    let order = shuffled(keys);
    let mut contestants: Vec<_> = contestants(Instant::now())
        .into_iter()
        .enumerate()
        .filter(|(index, (name, _))| {
            *index == 0 || names.is_empty() || names.iter().any(|part| name.contains(part))
        })
        .map(|(_, (name, make))| Contestant {
            name,
            visit: make(),
            nanos_per_operation: Vec::new(),
        })
        .collect();
    // The first round fills the tables and is not counted.
    for round in 0..=rounds {
        for contestant in &mut contestants {
            let nanos = (contestant.visit)(&order);
            if round > 0 {
                contestant.nanos_per_operation.push(nanos / f64::from(keys));
            }
        }
    }
    report(&mut contestants, keys, rounds);
}

type Make = Box<dyn FnOnce() -> Visit>;

/// The first is the measure of the others.
fn contestants(start: Instant) -> Vec<(&'static str, Make)> {
    let std = move || Time::after_epoch(start.elapsed());
    let none = || Time::ZERO;
    vec![
        (
            "governor check_key, its default clock",
            make(|| theirs(QuantaClock::default())),
        ),
        ("governor check_key, std Instant", make(|| theirs(MonotonicClock))),
        (
            "governor check_key, no clock",
            make(|| theirs(FakeRelativeClock::default())),
        ),
        (
            "admit, governor's default clock",
            make(|| admissions(one_quota(), quanta())),
        ),
        ("admit, no clock", make(move || admissions(one_quota(), none))),
        (
            "admit + settle, governor's default clock",
            make(|| ours(one_quota(), quanta())),
        ),
        (
            "admit + settle, std Instant",
            make(move || ours(one_quota(), std)),
        ),
        ("admit + settle, no clock", make(move || ours(one_quota(), none))),
        ("admit refused, std Instant", make(move || refused(std))),
        (
            "admit + settle, 4 policies, std Instant",
            make(move || ours(four_policies(), std)),
        ),
        (
            "admit + settle, 8 quotas, std Instant",
            make(move || ours(eight_quotas(), std)),
        ),
        (
            "admit, 8 quotas, governor's default clock",
            make(|| admissions(eight_quotas(), quanta())),
        ),
    ]
}

fn make(visit: impl FnOnce() -> Visit + 'static) -> Make {
    Box::new(visit)
}

/// The clock that `governor` reads unless it is told otherwise.
fn quanta() -> impl Fn() -> Time {
    let clock = QuantaClock::default();
    let start = clock.now();
    move || Time::from_nanos(clock.now().duration_since(start).as_u64())
}

fn report(contestants: &mut [Contestant], keys: u32, rounds: usize) {
    println!(
        "{keys} keys, median of {rounds} rounds; the clock of std takes {:.0} ns",
        clock_nanos()
    );
    println!(
        "{:<42} {:>8} {:>8} {:>24}",
        "", "ns", "M/s", "x governor (min..max)"
    );
    let governor = contestants[0].nanos_per_operation.clone();
    for contestant in contestants {
        let mut ratios: Vec<_> = governor
            .iter()
            .zip(&contestant.nanos_per_operation)
            .map(|(theirs, ours)| theirs / ours)
            .collect();
        let ratio = median(&mut ratios);
        let nanos = median(&mut contestant.nanos_per_operation);
        let range = format!("{ratio:.2} ({:.2}..{:.2})", ratios[0], ratios[ratios.len() - 1]);
        println!(
            "{:<42} {nanos:>8.1} {:>8.2} {range:>24}",
            contestant.name,
            1e3 / nanos
        );
    }
}

/// Sorts the values and returns the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn clock_nanos() -> f64 {
    let begin = processor_nanos();
    for _ in 0..KEYS {
        black_box(Instant::now());
    }
    (processor_nanos() - begin) / f64::from(KEYS)
}

/// How long it takes.
fn timed(work: impl FnOnce()) -> f64 {
    let begin = processor_nanos();
    work();
    processor_nanos() - begin
}

/// How long this thread has had a processor, so that what others run counts less.
fn processor_nanos() -> f64 {
    let used = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used)
        .expect("it is not negative")
        .as_secs_f64()
        * 1e9
}

/// The keys in an order of no pattern, the same in every run.
fn shuffled(keys: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(index).expect("it counts keys") + 1;
        order.swap(
            index,
            usize::try_from(state % bound).expect("below the number of keys"),
        );
    }
    order
}

// === The contestants ===

fn theirs<C: Clock + 'static>(clock: C) -> Visit {
    let quota = TheirQuota::per_minute(NonZeroU32::new(LIMIT).expect("not zero"));
    let limiter =
        RateLimiter::<u64, DashMapStateStore<u64>, C, NoOpMiddleware<C::Instant>>::dashmap_with_clock(
            quota, clock,
        );
    Box::new(move |keys| {
        timed(|| {
            for key in keys {
                assert!(black_box(limiter.check_key(&u64::from(*key))).is_ok());
            }
        })
    })
}

fn ours(policies: Vec<Policy>, clock: impl Fn() -> Time + 'static) -> Visit {
    let mut limiter = Limiter::new(policies);
    visit_some(move |subjects| {
        timed(|| {
            for subject in subjects {
                limiter.prepare(subject);
                let now = clock();
                let admitted = limiter.admit(now, *subject, COST);
                let reservation = black_box(admitted.expect("within the quotas"));
                limiter.settle(now, reservation, COST);
            }
        })
    })
}

/// The settlements are not timed: a request is settled when its answer has ended, long after.
fn admissions(policies: Vec<Policy>, clock: impl Fn() -> Time + 'static) -> Visit {
    let mut limiter = Limiter::new(policies);
    let mut open = Vec::new();
    visit_some(move |subjects| {
        let nanos = timed(|| {
            for subject in subjects {
                limiter.prepare(subject);
                let admitted = limiter.admit(clock(), *subject, COST);
                open.push(admitted.expect("within the quotas"));
            }
        });
        let now = clock();
        for reservation in open.drain(..) {
            limiter.settle(now, reservation, COST);
        }
        nanos
    })
}

/// Visits a thousand at a time. Who asks was known before, as a server knows it from authentication on.
fn visit_some(mut visit: impl FnMut(&[Subject]) -> f64 + 'static) -> Visit {
    Box::new(move |keys| {
        let some = keys.chunks(1_000).map(|keys| {
            let subjects: Vec<Subject> = keys.iter().map(|key| subject(*key)).collect();
            visit(&subjects)
        });
        some.sum()
    })
}

fn refused(clock: impl Fn() -> Time + 'static) -> Visit {
    let quota = Quota::with_burst(1, 1_000 * MINUTE, 1).expect("it is exact");
    let mut limiter = Limiter::new(vec![per_caller("caller", vec![(Unit::Requests, quota)])]);
    let mut is_drained = false;
    Box::new(move |keys| {
        // Done in the round that is not counted.
        if !std::mem::replace(&mut is_drained, true) {
            for key in keys {
                let reservation = limiter
                    .admit(clock(), subject(*key), COST)
                    .expect("the bucket is full");
                limiter.settle(clock(), reservation, COST);
            }
        }
        timed(|| {
            for key in keys {
                assert!(black_box(limiter.admit(clock(), subject(*key), COST)).is_err());
            }
        })
    })
}

fn subject(caller: u32) -> Subject {
    Subject {
        caller,
        team: caller / 1_000,
        model: caller % 8,
        ..Subject::default()
    }
}

fn one_quota() -> Vec<Policy> {
    vec![per_caller(
        "caller",
        vec![(Unit::Requests, per_minute(LIMIT.into()))],
    )]
}

/// A million buckets, a thousand, eight, and one.
fn four_policies() -> Vec<Policy> {
    let policy = |name: &str, per| Policy {
        per,
        ..per_caller(name, requests())
    };
    vec![
        policy(
            "caller",
            Per {
                caller: true,
                ..Per::default()
            },
        ),
        policy(
            "team",
            Per {
                team: true,
                ..Per::default()
            },
        ),
        policy(
            "model",
            Per {
                model: true,
                ..Per::default()
            },
        ),
        policy("all", Per::default()),
    ]
}

/// Eight million buckets.
fn eight_quotas() -> Vec<Policy> {
    let units = [
        Unit::Requests,
        Unit::InputTokens,
        Unit::OutputTokens,
        Unit::Tokens,
    ];
    let quotas = |limit| units.map(|unit| (unit, per_minute(limit))).to_vec();
    vec![
        per_caller("minute", quotas(1_000)),
        per_caller("other", quotas(6_000)),
    ]
}

fn per_caller(name: &str, quotas: Vec<(Unit, Quota)>) -> Policy {
    let per = Per {
        caller: true,
        ..Per::default()
    };
    Policy {
        name: name.into(),
        matches: Match::default(),
        per,
        quotas,
        concurrency: None,
        ..Policy::default()
    }
}

fn requests() -> Vec<(Unit, Quota)> {
    vec![(Unit::Requests, per_minute(1_000_000_000))]
}

fn per_minute(limit: u64) -> Quota {
    Quota::new(limit, MINUTE).expect("it is exact")
}
