use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llm_engine_overload::{Asked, CallerOutcome, Outcome, Scenario, Second};
use tokio::time::Instant;

/// What came of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// The same as is told of a simulation, counted in the same way; nothing of what is inside the server.
    pub outcome: Outcome,
    /// What else happened than answers and refusals, and how often.
    pub errors: BTreeMap<String, u64>,
}

/// Counts what comes of calls.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Instant,
    scenario: Scenario,
    measured: Mutex<Measured>,
}

/// What is counted in now.
struct Counted<'a> {
    measured: MutexGuard<'a, Measured>,
    /// Whether the warm-up is over.
    is_warm: bool,
    second: usize,
}

/// A whole answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) first: Duration,
    pub(crate) others: Duration,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario, begun: Instant) -> Self {
        let outcome = Outcome {
            callers: vec![CallerOutcome::default(); scenario.callers.len()],
            by_gateway: vec![0],
            lasted: scenario.lasts - scenario.warm_up,
            ..Outcome::default()
        };
        Self {
            begun,
            scenario: scenario.clone(),
            measured: Mutex::new(Measured {
                outcome,
                ..Measured::default()
            }),
        }
    }

    pub(crate) fn offered(&self, caller: usize) {
        let mut counted = self.counted();
        counted.second().offered += 1;
        if counted.is_warm {
            counted.outcome().offered += 1;
            counted.outcome().callers[caller].offered += 1;
        }
    }

    pub(crate) fn called(&self) {
        let mut counted = self.counted();
        counted.outcome().calls += u64::from(counted.is_warm);
    }

    pub(crate) fn claimed(&self, is_kept: bool) {
        let mut counted = self.counted();
        if counted.is_warm {
            counted.outcome().claimed += 1;
            counted.outcome().kept += u64::from(is_kept);
        }
    }

    pub(crate) fn refused(&self) {
        let mut counted = self.counted();
        counted.second().refused += 1;
        counted.outcome().refused += u64::from(counted.is_warm);
    }

    pub(crate) fn hung_up(&self) {
        let mut counted = self.counted();
        counted.outcome().hung_up += u64::from(counted.is_warm);
    }

    pub(crate) fn lost(&self) {
        let mut counted = self.counted();
        counted.outcome().lost += u64::from(counted.is_warm);
    }

    pub(crate) fn failed(&self, error: String) {
        *self.counted().measured.errors.entry(error).or_default() += 1;
    }

    pub(crate) fn first_token(&self, caller: usize, after: Duration) {
        let mut counted = self.counted();
        if counted.is_warm {
            let after = after.as_secs_f64();
            counted.outcome().first_tokens.push(after);
            counted.outcome().callers[caller].first_tokens.push(after);
        }
    }

    pub(crate) fn ended(&self, caller: usize, asked: Asked, base: f64, answer: Answer) {
        let Answer { first, others } = answer;
        let clients = &self.scenario.clients;
        let is_good = clients.is_good(base, first, others, asked.output);
        let mut counted = self.counted();
        if is_good {
            counted.second().good_tokens += asked.output;
        }
        if !counted.is_warm {
            return;
        }
        let outcome = counted.outcome();
        outcome.callers[caller].served += asked.input + 2 * asked.output;
        if is_good {
            outcome.good += 1;
            outcome.good_tokens += asked.output;
            outcome.callers[caller].good += 1;
            outcome.by_gateway[0] += 1;
        }
    }

    /// What came of it all, with what the engine has put back.
    pub(crate) fn measured(&self, preemptions: u64) -> Measured {
        let mut measured = self.counted().measured.clone();
        let outcome = &mut measured.outcome;
        outcome.preemptions = preemptions;
        outcome.first_tokens.sort_by(f64::total_cmp);
        for caller in &mut outcome.callers {
            caller.first_tokens.sort_by(f64::total_cmp);
        }
        measured
    }

    fn counted(&self) -> Counted<'_> {
        let now = self.begun.elapsed();
        Counted {
            measured: self.measured.lock().unwrap_or_else(PoisonError::into_inner),
            is_warm: now.as_secs_f64() > self.scenario.warm_up,
            second: usize::try_from(now.as_secs()).unwrap_or(0),
        }
    }
}

impl Counted<'_> {
    fn outcome(&mut self) -> &mut Outcome {
        &mut self.measured.outcome
    }

    fn second(&mut self) -> &mut Second {
        let index = self.second;
        let seconds = &mut self.outcome().seconds;
        if seconds.len() <= index {
            seconds.resize(index + 1, Second::default());
        }
        &mut seconds[index]
    }
}
