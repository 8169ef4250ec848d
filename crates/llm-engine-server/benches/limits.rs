//! What limits cost one request: everything that the server does for it under four policies besides carrying it. The request is
//! decided about, settled with less than it had reserved, and its quotas are written into the headers of its answer.
//!
//! `cargo bench -p llm-engine-server --bench limits` prints the processor time of each part, the median of rounds in which the
//! parts take turns; 10,000 callers come in an order of no pattern. What is called, and how often, is what the gateway calls.

#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderMap;
use llm_engine_limit::{Cost, Fingerprint, Limiter, Per, Policy, Quota, Subject, Time, Unit};
use llm_engine_server::rate_limit_headers;
use rustix::time::{ClockId, clock_gettime};

const CALLERS: u32 = 10_000;
const ROUNDS: usize = 21;
const ASKED: Cost = Cost {
    requests: 1,
    input_tokens: 200,
    output_tokens: 400,
    nano_usd: 2_700,
};
const USED: Cost = Cost {
    output_tokens: 150,
    nano_usd: 1_200,
    ..ASKED
};

fn main() {
    // Not `cargo bench` but `cargo test`: show only that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (requests, rounds) = if is_bench { (100_000, ROUNDS) } else { (100, 1) };
    let mut limiter = Limiter::new(four_policies());
    let clock = std::time::Instant::now();
    let now = || Time::after_epoch(clock.elapsed());
    let mut decided = Vec::new();
    let mut written = Vec::new();
    let mut explained = Vec::new();
    for _ in 0..rounds {
        decided.push(nanos_each(requests, |number| {
            let subject = subject(number);
            decide(&mut limiter, now(), subject, number);
        }));
        written.push(nanos_each(requests, |number| {
            let subject = subject(number);
            decide(&mut limiter, now(), subject, number);
            let mut headers = HeaderMap::new();
            rate_limit_headers::add(&mut headers, &limiter.levels(now(), subject));
            black_box(headers);
        }));
        explained.push(nanos_each(requests, |number| {
            black_box(limiter.levels(now(), subject(number)));
        }));
    }
    let [decided, written, explained] =
        [decided, written, explained].map(|mut nanos| median(&mut nanos) / 1e3);
    println!(
        "four policies, seven quotas, one concurrency; processor time of one request, median of {rounds} rounds"
    );
    println!("admit and settle               {decided:>6.2} µs");
    println!("the same and the headers       {written:>6.2} µs");
    println!("levels before, to be explained {explained:>6.2} µs");
}

fn decide(limiter: &mut Limiter, now: Time, subject: Subject, number: u32) {
    let fingerprint = Fingerprint {
        digest: number.into(),
        is_unique: false,
    };
    let admitted = limiter.admit_or_book(now, subject, ASKED, fingerprint);
    limiter.settle(now, black_box(admitted.expect("within the quotas")), USED);
}

fn subject(number: u32) -> Subject {
    let caller = number.wrapping_mul(2_654_435_769) % CALLERS;
    Subject {
        caller,
        team: caller / 100,
        model: number % 8,
        ..Subject::default()
    }
}

fn four_policies() -> Vec<Policy> {
    let quota = |unit| {
        let quota = Quota::new(60_000_000_000, Duration::from_secs(60));
        (unit, quota.expect("it is exact"))
    };
    let policy = |name: &str, per, units: &[Unit], concurrency| Policy {
        name: name.into(),
        per,
        quotas: units.iter().copied().map(quota).collect(),
        concurrency: NonZeroU32::new(concurrency),
        ..Policy::default()
    };
    let nobody = Per::default();
    vec![
        policy(
            "per-key",
            Per {
                caller: true,
                model: true,
                ..nobody
            },
            &[Unit::Requests, Unit::Tokens],
            8,
        ),
        policy(
            "team",
            Per { team: true, ..nobody },
            &[Unit::Tokens, Unit::Usd],
            0,
        ),
        policy(
            "model",
            Per {
                model: true,
                ..nobody
            },
            &[Unit::InputTokens, Unit::OutputTokens],
            0,
        ),
        policy("all", nobody, &[Unit::Requests], 0),
    ]
}

/// Processor time of one, of so many.
fn nanos_each(requests: u32, mut work: impl FnMut(u32)) -> f64 {
    let used = || {
        let used = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
        used.expect("it is not negative").as_secs_f64() * 1e9
    };
    let begun = used();
    for number in 0..requests {
        work(number);
    }
    (used() - begun) / f64::from(requests)
}

/// Sorts the values and returns the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
