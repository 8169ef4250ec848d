use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llm_engine_retry::{Progress, Stop as Rule};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::seconds::Seconds;

/// When to make no other attempt. Rules are combined by `|` (as soon as one of them stops) and `&` (only when both do).
///
/// >>> stop = Stop.after_attempts(6) | Stop.before(60)
/// >>> stop.stops(attempts=2, elapsed=50, wait=9)
/// False
/// >>> stop.stops(attempts=2, elapsed=50, wait=10)
/// True
#[pyclass(frozen, module = "llmengine")]
pub(crate) struct Stop {
    rule: Rule,
    events: Vec<Event>,
    /// As it is written in Python.
    text: String,
}

/// What is asked of Python, and where the rule sees the answer.
struct Event {
    event: Py<PyAny>,
    flag: Arc<AtomicBool>,
}

impl Stop {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self {
            rule,
            events: Vec::new(),
            text: text.into(),
        }
    }

    /// The rule, and the events that have to be looked at before each time that it is asked.
    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(crate) fn look_at_events(&self, py: Python<'_>) -> PyResult<()> {
        for Event { event, flag } in &self.events {
            let is_set = event.call_method0(py, "is_set")?.is_truthy(py)?;
            flag.store(is_set, Ordering::Release);
        }
        Ok(())
    }

    fn with(&self, py: Python<'_>, other: &Self, rule: Rule, word: &str) -> Self {
        let events = self.events.iter().chain(&other.events);
        let events = events.map(|Event { event, flag }| Event {
            event: event.clone_ref(py),
            flag: flag.clone(),
        });
        Self {
            rule,
            events: events.collect(),
            text: format!("({} {word} {})", self.text, other.text),
        }
    }
}

#[pymethods]
impl Stop {
    /// Tries for ever.
    #[staticmethod]
    fn never() -> Self {
        Self::new(Rule::never(), "Stop.never()")
    }

    /// Makes this many attempts, the first included; 0 is as 1.
    #[staticmethod]
    fn after_attempts(attempts: u32) -> Self {
        Self::new(
            Rule::after_attempts(attempts),
            format!("Stop.after_attempts({attempts})"),
        )
    }

    /// Makes no other attempt once this much time has passed. The last one may begin a wait later than that: see `before`.
    #[staticmethod]
    fn after(elapsed: Seconds) -> Self {
        Self::new(
            Rule::after(elapsed.0),
            format!("Stop.after({})", elapsed.0.as_secs_f64()),
        )
    }

    /// Makes no attempt that would begin when this much time has passed.
    #[staticmethod]
    fn before(elapsed: Seconds) -> Self {
        Self::new(
            Rule::before(elapsed.0),
            format!("Stop.before({})", elapsed.0.as_secs_f64()),
        )
    }

    /// Makes no other attempt once the event (of `threading`, `asyncio` or `multiprocessing`) is set.
    #[staticmethod]
    fn when_set(event: Bound<'_, PyAny>) -> PyResult<Self> {
        if !event.hasattr("is_set")? {
            return Err(PyTypeError::new_err(format!(
                "{event:?} is no event: it has no is_set()"
            )));
        }
        let flag = Arc::new(AtomicBool::new(false));
        let text = format!("Stop.when_set({event:?})");
        Ok(Self {
            events: vec![Event {
                event: event.unbind(),
                flag: flag.clone(),
            }],
            ..Self::new(Rule::when_set(flag), text)
        })
    }

    /// Whether it ends here, after so many attempts and so much time, if the next wait were so long.
    #[pyo3(signature = (attempts, elapsed = Seconds(std::time::Duration::ZERO), wait = Seconds(std::time::Duration::ZERO)), text_signature = "(self, attempts, elapsed=0, wait=0)")]
    fn stops(&self, py: Python<'_>, attempts: u32, elapsed: Seconds, wait: Seconds) -> PyResult<bool> {
        self.look_at_events(py)?;
        Ok(self.rule.stops(&Progress {
            attempts,
            elapsed: elapsed.0,
            wait: wait.0,
        }))
    }

    fn __or__(&self, py: Python<'_>, other: &Self) -> Self {
        self.with(py, other, self.rule.clone() | other.rule.clone(), "|")
    }

    fn __and__(&self, py: Python<'_>, other: &Self) -> Self {
        self.with(py, other, self.rule.clone() & other.rule.clone(), "&")
    }

    fn __repr__(&self) -> &str {
        &self.text
    }
}
