//! Never a herd: many clients at one quota, simulated, each retrying in its own way. Seeds are fixed and paired, so that
//! nothing here depends on luck.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use llm_engine_limit::{Cost, Fingerprint, Limiter, Per, Quota, Refusal, Time, Unit};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::shapes::{ANYONE, policy};

const ONE: Cost = Cost {
    requests: 1,
    ..Cost::NOTHING
};

/// How a client waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// As `retry-after-ms` says.
    AsTold,
    /// The published example: random exponential between 1 and 60 seconds, whatever the answer says.
    Tenacity,
}

struct Random(TestRng);

impl Random {
    fn new(seed: u8) -> Self {
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / f64::from(u32::MAX)
    }

    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.unit())
    }
}

#[derive(Debug, Clone, Copy)]
struct Client {
    retry: Retry,
    attempts: u32,
    most_attempts: u32,
}

#[derive(Debug, Default)]
struct Outcome {
    calls: u32,
    admitted: u32,
    lost: u32,
    /// Booked retries at the told time, and how many of them were admitted.
    kept: (u32, u32),
    last: Time,
}

/// Lets clients come at their times until each is admitted or has given up; `until`: no longer than that.
fn run(
    limiter: &mut Limiter,
    arrivals: impl IntoIterator<Item = (Time, Client)>,
    until: Time,
    random: &mut Random,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut clients = Vec::new();
    let mut events: BinaryHeap<Reverse<(Time, usize)>> = BinaryHeap::new();
    let mut told = Vec::new();
    for (at, client) in arrivals {
        events.push(Reverse((at, clients.len())));
        clients.push(client);
        told.push(false);
    }
    while let Some(Reverse((now, index))) = events.pop() {
        if now > until {
            break;
        }
        let client = &mut clients[index];
        client.attempts += 1;
        outcome.calls += 1;
        let fingerprint = Fingerprint {
            digest: index as u64,
            is_unique: false,
        };
        let answer = limiter.admit_or_book(now, ANYONE, ONE, fingerprint);
        if told[index] {
            outcome.kept.0 += 1;
            outcome.kept.1 += u32::from(answer.is_ok());
        }
        match answer {
            Ok(reservation) => {
                limiter.settle(now, reservation, ONE);
                outcome.admitted += 1;
                outcome.last = outcome.last.max(now);
            }
            Err(_) if client.attempts == client.most_attempts => outcome.lost += 1,
            Err(Refusal::NotNow(refusal)) => {
                told[index] = refusal.booked && client.retry == Retry::AsTold;
                let wait = match client.retry {
                    Retry::AsTold => {
                        let milliseconds = refusal.wait.as_nanos().div_ceil(1_000_000);
                        let latency = random.between(0.0, 0.02);
                        Duration::from_millis(u64::try_from(milliseconds).unwrap()) + latency
                    }
                    Retry::Tenacity => {
                        let high = 2_f64.powi(i32::try_from(client.attempts).unwrap() - 1);
                        random.between(1.0, high.clamp(1.0, 60.0))
                    }
                };
                events.push(Reverse((now + wait, index)));
            }
            Err(Refusal::NeverFits(never)) => panic!("{never:?}"),
        }
    }
    outcome
}

fn per_second(limit: u64, burst: u64) -> Limiter {
    let quota = Quota::with_burst(limit, Duration::from_secs(1), burst).unwrap();
    let per = Per {
        caller: true,
        ..Per::default()
    };
    Limiter::new(vec![policy("p", per, vec![(Unit::Requests, quota)])])
}

fn at_once(count: usize, within: f64, client: Client, random: &mut Random) -> Vec<(Time, Client)> {
    (0..count)
        .map(|_| (Time::ZERO + random.between(0.0, within), client))
        .collect()
}

const AS_TOLD: Client = Client {
    retry: Retry::AsTold,
    attempts: 0,
    most_attempts: u32::MAX,
};
const TENACITY: Client = Client {
    retry: Retry::Tenacity,
    attempts: 0,
    most_attempts: 6,
};

#[test]
fn of_5000_within_a_second_each_is_admitted_at_its_first_retry() {
    let mut random = Random::new(1);
    let arrivals = at_once(5_000, 1.0, AS_TOLD, &mut random);
    let outcome = run(&mut per_second(100, 100), arrivals, Time::END, &mut random);
    assert_eq!((outcome.admitted, outcome.lost), (5_000, 0));
    assert_eq!(
        outcome.kept.0, outcome.kept.1,
        "all booked times are kept: {outcome:?}"
    );
    assert!(outcome.calls < 2 * 5_000, "{outcome:?}");
    assert!(
        outcome.last.since(Time::ZERO) < Duration::from_secs_f64(49.0 * 1.03),
        "{outcome:?}"
    );
}

#[test]
fn of_100_at_once_without_burst_each_is_admitted_at_its_first_retry() {
    let mut random = Random::new(2);
    let arrivals = at_once(100, 0.02, AS_TOLD, &mut random);
    let outcome = run(&mut per_second(10, 1), arrivals, Time::END, &mut random);
    assert_eq!((outcome.admitted, outcome.lost), (100, 0));
    assert!(outcome.calls < 2 * 100, "{outcome:?}");
    assert!(
        outcome.last.since(Time::ZERO) < Duration::from_secs_f64(9.9 * 1.05),
        "{outcome:?}"
    );
}

#[test]
fn no_more_clients_of_the_published_example_are_lost_than_without_bookings() {
    let lost: Vec<u32> = (0..40)
        .map(|seed| {
            let mut random = Random::new(seed);
            let arrivals = at_once(200, 0.5, TENACITY, &mut random);
            run(&mut per_second(20, 20), arrivals, Time::END, &mut random).lost
        })
        .collect();
    let runs_with_losses = lost.iter().filter(|lost| **lost > 0).count();
    assert!(runs_with_losses <= 1, "{lost:?}");
}

#[test]
fn booked_times_are_kept_and_nothing_is_wasted_at_any_share_of_obedient_clients() {
    for share in [1.0, 0.5, 0.1] {
        for load in [1.2, 2.0] {
            let (mut kept, mut told, mut admitted) = (0, 0, 0);
            let seconds = 300;
            for seed in 0..5 {
                let mut random = Random::new(seed);
                let mut limiter = per_second(20, 20);
                let end = Time::ZERO + Duration::from_secs(seconds);
                let mut at = Time::ZERO;
                let mut arrivals = Vec::new();
                while at < end {
                    at = at + Duration::from_secs_f64(-(1.0 - random.unit()).max(1e-9).ln() / (20.0 * load));
                    let obeys = random.unit() < share;
                    arrivals.push((
                        at,
                        if obeys {
                            Client {
                                most_attempts: 4,
                                ..AS_TOLD
                            }
                        } else {
                            Client {
                                most_attempts: 4,
                                ..TENACITY
                            }
                        },
                    ));
                }
                let outcome = run(&mut limiter, arrivals, end, &mut random);
                told += outcome.kept.0;
                kept += outcome.kept.1;
                admitted += outcome.admitted;
            }
            let kept = f64::from(kept) / f64::from(told.max(1));
            let used = f64::from(admitted) / (5.0 * (20.0 * seconds as f64 + 20.0));
            assert!(kept >= 0.95, "share {share} load {load}: kept {kept}");
            assert!(used >= 0.97, "share {share} load {load}: used {used}");
        }
    }
}
