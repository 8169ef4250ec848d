//! Many callers that know nothing of each other, at once, at a quota: the simulation that the numbers in the field come from.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use llm_engine_retry::{Backoff, Failure, Hint, Jitter, Judgement, Next, Retry, Stop};

use crate::server::{Bucket, Says};

const SEEDS: u64 = 20;
const ATTEMPTS: u32 = 6;

/// Means over the seeds.
#[derive(Debug)]
struct Crowd {
    succeed: f64,
    calls_per_success: f64,
    /// When each of those succeeded who did, by seed.
    times: Vec<Vec<f64>>,
}

fn crowd(callers: usize, burst: f64, says: Says, retry: &Retry) -> Crowd {
    let mut succeeded = 0;
    let mut calls = 0;
    let mut times = Vec::new();
    for seed in 0..SEEDS {
        let mut server = Bucket::new(10.0, burst, says);
        let mut order = Rng::with_seed(seed);
        let mut attempts: Vec<_> = (0..callers)
            .map(|caller| {
                let mut random = Rng::with_seed((seed << 32) | caller as u64);
                retry.start(Duration::ZERO, None, move || random.f64())
            })
            .collect();
        let mut hints: Vec<Option<Hint>> = vec![None; callers];
        let mut due: BinaryHeap<_> = (0..callers)
            .map(|caller| Reverse((Duration::ZERO, order.u64(..), caller)))
            .collect();
        let mut of_seed = Vec::new();
        while let Some(Reverse((now, _, caller))) = due.pop() {
            calls += 1;
            attempts[caller].begin(now);
            let is_booked = hints[caller].is_some_and(|hint| hint.is_booked);
            let verdict = server.ask(now, is_booked);
            if verdict.is_admitted {
                of_seed.push(now.as_secs_f64());
                continue;
            }
            hints[caller] = verdict.hint;
            let failure = Failure {
                what: "429".into(),
                judgement: verdict.hint.map_or(Judgement::Transient, Judgement::Hinted),
            };
            if let Next::Wait(wait) = attempts[caller].end(now, failure, None) {
                due.push(Reverse((now + wait, order.u64(..), caller)));
            }
        }
        succeeded += of_seed.len();
        times.push(of_seed);
    }
    Crowd {
        succeed: succeeded as f64 / (callers as f64 * SEEDS as f64),
        calls_per_success: calls as f64 / succeeded as f64,
        times,
    }
}

impl Crowd {
    /// The mean time until so many callers have succeeded; `None` if there were fewer in some seed.
    fn time_until(&self, served: usize) -> Option<f64> {
        let times: Option<Vec<f64>> = self
            .times
            .iter()
            .map(|times| times.get(served - 1).copied())
            .collect();
        times.map(|times| times.iter().sum::<f64>() / times.len() as f64)
    }
}

#[test]
fn with_hints_everybody_is_served_at_the_second_call() {
    for (callers, burst) in [(100, 1.0), (1000, 10.0)] {
        let outcome = crowd(callers, burst, Says::Everything, &Retry::default());
        let optimum = (callers as f64 - burst) / 10.0;
        let time = outcome.time_until(callers).unwrap() / optimum;
        println!(
            "{callers} callers, hints: {:.2} calls, {time:.3}x, {:.0} %",
            outcome.calls_per_success,
            100.0 * outcome.succeed
        );
        assert!(outcome.succeed >= 1.0);
        assert!(outcome.calls_per_success <= 2.0);
        assert!(time <= 1.05);
    }
}

#[test]
fn without_hints_it_is_no_worse_than_full_jitter() {
    let second = Duration::from_secs(1);
    let full_jitter = Retry::new(
        Backoff::exponential(second, 2.0)
            .at_most(60 * second)
            .jitter(Jitter::Full),
        Stop::after_attempts(ATTEMPTS),
    );
    let published = Retry::new(Backoff::published(), Stop::after_attempts(ATTEMPTS));
    for (callers, burst) in [(100, 1.0), (1000, 10.0)] {
        let outcomes = [Retry::default(), full_jitter.clone(), published.clone()]
            .map(|retry| crowd(callers, burst, Says::Nothing, &retry));
        // As many as full jitter brings through in every seed.
        let served = outcomes[1].times.iter().map(Vec::len).min().unwrap();
        for (name, outcome) in ["ours", "full jitter", "published"].iter().zip(&outcomes) {
            println!(
                "{callers} callers, {name}: {:.2} calls, {:.1} %, the first {served} within {:.1?} s",
                outcome.calls_per_success,
                100.0 * outcome.succeed,
                outcome.time_until(served).unwrap()
            );
        }
        let [ours, full_jitter, _] = &outcomes;
        let time = |outcome: &Crowd| outcome.time_until(served).unwrap();
        assert!(time(ours) <= time(full_jitter));
        assert!(ours.succeed >= full_jitter.succeed);
        assert!(ours.calls_per_success <= full_jitter.calls_per_success);
    }
}
