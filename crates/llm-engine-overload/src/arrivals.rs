use std::time::Duration;

use crate::random::{length, stream};
use crate::{CallerLoad, Scenario};

/// The requests of one caller, without end. They are the same for the same seed, whatever becomes of them.
#[derive(Debug, Clone)]
pub struct Arrivals {
    load: CallerLoad,
    gateways: Vec<f64>,
    random: fastrand::Rng,
    next: Duration,
}

/// A request that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// When, since the start.
    pub at: Duration,
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// To which gateway.
    pub gateway: usize,
}

impl Scenario {
    /// The requests of each caller.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrivals> {
        let of_caller = |(number, load): (u64, &CallerLoad)| {
            let mut arrivals = Arrivals {
                load: *load,
                gateways: self.gateways.clone(),
                random: stream(self.seed, number),
                next: Duration::ZERO,
            };
            arrivals.pause();
            arrivals
        };
        (0..).zip(&self.callers).map(of_caller).collect()
    }
}

impl Arrivals {
    fn pause(&mut self) {
        if self.load.rate > 0.0 {
            let pause = -(1.0 - self.random.f64()).ln() / self.load.rate;
            self.next += Duration::from_secs_f64(pause.clamp(0.0, LONGEST_PAUSE));
        }
    }
}

impl Iterator for Arrivals {
    type Item = Asked;

    fn next(&mut self) -> Option<Asked> {
        if self.load.rate <= 0.0 {
            return None;
        }
        let at = self.next;
        self.pause();
        let input = length(&mut self.random, self.load.input);
        let output = length(&mut self.random, self.load.output);
        let mut pick = self.random.f64() * self.gateways.iter().sum::<f64>();
        let gateway = self.gateways.iter().position(|weight| {
            pick -= weight;
            pick < 0.0
        });
        Some(Asked {
            at,
            input,
            output,
            gateway: gateway.unwrap_or(0),
        })
    }
}

/// Seconds: far beyond any scenario, and few enough to be added up.
const LONGEST_PAUSE: f64 = 1e9;
