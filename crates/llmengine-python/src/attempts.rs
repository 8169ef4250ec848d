use std::time::Duration;

use llm_engine_retry::{Attempts as Course, Failure, Hint, Judgement, Next, Reason, Retry};
use pyo3::prelude::*;

use crate::backoff::{Backoff, Random, random};
use crate::budget::Budget;
use crate::seconds::Seconds;
use crate::stop::Stop;

/// The attempts of one call under `retry`, from its first failure on. Times are seconds since the call.
#[pyclass(module = "llmengine._native")]
pub(crate) struct Attempts {
    /// `None` when its records have been taken.
    course: Option<Course<Random>>,
    stop: Py<Stop>,
    budget: Option<Py<Budget>>,
    reason: Option<String>,
}

#[pymethods]
impl Attempts {
    #[new]
    #[pyo3(signature = (backoff, stop, *, deadline, longest_hint, counts_hinted, budget, seed))]
    fn new(
        backoff: &Backoff,
        stop: Py<Stop>,
        deadline: Option<Seconds>,
        longest_hint: Seconds,
        counts_hinted: bool,
        budget: Option<Py<Budget>>,
        seed: Option<u64>,
    ) -> Self {
        let retry = Retry::new(backoff.recipe.clone(), stop.get().rule().clone())
            .longest_hint(longest_hint.0)
            .count_hinted(counts_hinted);
        let deadline = deadline.map(|deadline| deadline.0);
        Self {
            course: Some(retry.start(Duration::ZERO, deadline, random(seed))),
            stop,
            budget,
            reason: None,
        }
    }

    /// An attempt begins.
    fn begin(&mut self, now: Seconds) {
        if let Some(course) = &mut self.course {
            course.begin(now.0);
        }
    }

    /// The attempt has failed. Returns how long to wait before the next one; `None` if there is none.
    #[pyo3(signature = (now, what, *, hint, is_booked, is_permanent))]
    fn end(
        &mut self,
        py: Python<'_>,
        now: Seconds,
        what: String,
        hint: Option<Seconds>,
        is_booked: bool,
        is_permanent: bool,
    ) -> PyResult<Option<Seconds>> {
        self.stop.get().look_at_events(py)?;
        let Some(course) = &mut self.course else {
            return Ok(None);
        };
        let judgement = match hint {
            _ if is_permanent => Judgement::Permanent,
            None => Judgement::Transient,
            Some(hint) => Judgement::Hinted(Hint {
                after: hint.0,
                is_booked,
            }),
        };
        let failure = Failure { what, judgement };
        let is_free = hint.is_some();
        Ok(match course.end(now.0, failure, None) {
            // Asked here, because a budget has a clock of its own, by which all go that share it.
            Next::Wait(_) if !is_free && self.budget.as_ref().is_some_and(|budget| !budget.get().retry()) => {
                self.reason = Some(Reason::NoBudget.to_string());
                None
            }
            Next::Wait(wait) => Some(Seconds(wait)),
            Next::GiveUp(reason) => {
                self.reason = Some(reason.to_string());
                None
            }
        })
    }

    /// Why there is no other attempt.
    #[getter]
    fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Every attempt that failed. Ends it.
    fn take_records(&mut self) -> Vec<Attempt> {
        let records = self.course.take().map(Course::into_records);
        records.unwrap_or_default().into_iter().map(Attempt).collect()
    }
}

/// One attempt that failed.
#[pyclass(frozen, eq, module = "llmengine")]
#[derive(Clone, PartialEq)]
pub(crate) struct Attempt(pub(crate) llm_engine_retry::Attempt);

#[pymethods]
impl Attempt {
    #[new]
    fn new(number: u32, began: Seconds, took: Seconds, failure: String, waited: Seconds) -> Self {
        Self(llm_engine_retry::Attempt {
            number,
            began: began.0,
            took: took.0,
            failure,
            waited: waited.0,
        })
    }

    /// So that it can go to another process.
    fn __getnewargs__(&self) -> (u32, Seconds, Seconds, &str, Seconds) {
        (
            self.number(),
            self.began(),
            self.took(),
            self.failure(),
            self.waited(),
        )
    }

    /// From 1.
    #[getter]
    fn number(&self) -> u32 {
        self.0.number
    }

    /// When it began, in seconds since the first one did.
    #[getter]
    fn began(&self) -> Seconds {
        Seconds(self.0.began)
    }

    /// How many seconds it took to fail.
    #[getter]
    fn took(&self) -> Seconds {
        Seconds(self.0.took)
    }

    /// What went wrong.
    #[getter]
    fn failure(&self) -> &str {
        &self.0.failure
    }

    /// How many seconds there was nothing to do before it.
    #[getter]
    fn waited(&self) -> Seconds {
        Seconds(self.0.waited)
    }

    fn __repr__(&self) -> String {
        let llm_engine_retry::Attempt {
            number,
            began,
            took,
            failure,
            waited,
        } = &self.0;
        let [began, took, waited] = [began, took, waited].map(Duration::as_secs_f64);
        format!(
            "Attempt(number={number}, began={began:.3}, took={took:.3}, failure={failure:?}, waited={waited:.3})"
        )
    }
}
