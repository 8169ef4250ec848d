//! What tables of buckets cost that anybody can fill: the memory of ten million, and a flood of addresses that never come
//! twice.
//!
//! `cargo bench -p llm-engine-limit --bench tables` prints, for each kind of key, the resident memory that ten million live buckets
//! add to the process, all of their table with them; then what fifty million addresses do to a table of a million: how long a decision
//! takes, what memory is added, and whether those who owed something before still do.

#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::time::Duration;

use governor::clock::{Clock, QuantaClock, Reference};
use hdrhistogram::Histogram;
use llm_engine_limit::{Cost, Limiter, LimiterOptions, Per, Policy, Quota, Subject, Time, Unit, User};

const MINUTE: Duration = Duration::from_secs(60);
const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};
const DEBTORS: u32 = 1_000;

fn main() {
    // Not `cargo bench` but `cargo test`: show only that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (buckets, flood) = if is_bench {
        (10_000_000, 50_000_000)
    } else {
        (10_000, 50_000)
    };
    println!("{buckets} live buckets, resident bytes each:");
    let nobody = Per::default();
    live(
        "key",
        Per {
            caller: true,
            ..nobody
        },
        buckets,
        |id| Subject {
            caller: id,
            ..Subject::default()
        },
    );
    live(
        "key and model",
        Per {
            caller: true,
            model: true,
            ..nobody
        },
        buckets,
        |id| Subject {
            caller: id / 8,
            model: id % 8,
            ..Subject::default()
        },
    );
    live(
        "address",
        Per {
            address: true,
            ..nobody
        },
        buckets,
        |id| from(id.into()),
    );
    live("user", Per { user: true, ..nobody }, buckets, |id| Subject {
        user: user(id),
        ..Subject::default()
    });
    under_a_flood(flood);
}

/// Every bucket has given something that has not refilled.
fn live(name: &str, per: Per, buckets: u32, subject: impl Fn(u32) -> Subject) {
    let before = resident_bytes();
    let mut limiter = limiter(per, buckets);
    for id in 0..buckets {
        let admitted = limiter.admit(Time::ZERO, subject(id), ONE);
        limiter.settle(Time::ZERO, admitted.expect("the bucket is full"), ONE);
    }
    for id in [0, buckets / 2, buckets - 1] {
        let level = &limiter.levels(Time::ZERO, subject(id))[0];
        assert_eq!(
            level.remaining + 1,
            level.limit,
            "{name}: a live bucket is missing"
        );
    }
    let added = resident_bytes() - before;
    println!("  by {name:<14} {:>6.1}", added as f64 / f64::from(buckets));
}

fn under_a_flood(addresses: u64) {
    const MOST_KEYS: u32 = 1_000_000;
    let mut limiter = limiter(
        Per {
            address: true,
            ..Per::default()
        },
        MOST_KEYS,
    );
    let clock = QuantaClock::default();
    let start = clock.now();
    let now = || Time::from_nanos(clock.now().duration_since(start).as_u64());
    let debtor = |number: u32| from(u64::from(number) | 1 << 32);
    // Each owes an hour's worth.
    let debt = Cost {
        requests: 600,
        ..Cost::NOTHING
    };
    for number in 0..DEBTORS {
        let admitted = limiter
            .admit(now(), debtor(number), ONE)
            .expect("the bucket is full");
        limiter.settle(now(), admitted, debt);
    }
    let mut most = resident_bytes();
    let before = most;
    let mut times = Histogram::<u64>::new(3).expect("three digits");
    let mut admitted = 0_u64;
    for number in 0..addresses {
        let begun = now();
        let decision = limiter.admit(begun, from(scattered(number)), ONE);
        times
            .record(now().as_nanos() - begun.as_nanos())
            .expect("it grows");
        if let Ok(reservation) = decision {
            admitted += 1;
            limiter.settle(begun, reservation, ONE);
        }
        if number % 1_000_000 == 0 {
            most = most.max(resident_bytes());
        }
    }
    let end = now();
    let owing = (0..DEBTORS)
        .filter(|number| limiter.admit(end, debtor(*number), ONE).is_err())
        .count();
    let seconds = end.since(Time::ZERO).as_secs_f64();
    println!("{addresses} addresses within {seconds:.1} s on a table of {MOST_KEYS}, {admitted} admitted:");
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| times.value_at_quantile(quantile));
    println!(
        "  one decision: median {p50} ns, p99 {p99} ns, p99.9 {p999} ns, longest {} µs",
        times.max() / 1_000
    );
    println!("  resident memory added: {:.1} MB", (most - before) as f64 / 1e6);
    println!("  {owing} of {DEBTORS} debtors still owe");
}

/// As of a digest.
fn user(id: u32) -> User {
    User([0, 1, 2].map(|word| (scattered(u64::from(id) << 2 | word) >> 32) as u32))
}

/// Ten a minute.
fn limiter(per: Per, most_keys: u32) -> Limiter {
    let quota = Quota::new(10, MINUTE).expect("it is exact");
    let policy = Policy {
        name: "each".into(),
        per,
        quotas: vec![(Unit::Requests, quota)],
        ..Policy::default()
    };
    let options = LimiterOptions {
        most_keys,
        hash_seed: 7,
    };
    Limiter::with_options(vec![policy], options)
}

fn from(address: u64) -> Subject {
    Subject {
        address,
        ..Subject::default()
    }
}

/// Another number for each, in no order (the finalizer of SplitMix64).
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn resident_bytes() -> usize {
    let statistics = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = statistics
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second field is a number") * rustix::param::page_size()
}
