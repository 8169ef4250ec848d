use llm_engine_client::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::attempts::Attempt;
use crate::line::Line;
use crate::seconds::Seconds;

/// The exception for a call that failed.
pub(crate) fn raised(py: Python<'_>, error: &Error, line: &Line) -> PyErr {
    exception(py, error, line).map_or_else(|mistake| mistake, PyErr::from_value)
}

/// Which class it is, `llmengine/errors.py` decides.
fn exception<'py>(py: Python<'py>, error: &Error, line: &Line) -> PyResult<Bound<'py, PyAny>> {
    let attempts: Vec<_> = error.attempts().iter().cloned().map(Attempt).collect();
    py.import("llmengine.errors")?.getattr("_of_failure")?.call1((
        word(error.kind()),
        error.message(),
        error.reason().to_string(),
        error.status(),
        error.code(),
        error.policy(),
        error.retry_after().map(Seconds),
        error.is_booked(),
        error.is_transient(),
        error.request_id(),
        attempts,
        line.clone(),
    ))
}

fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => "refused",
        ErrorKind::BudgetSpent => "budget_spent",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unauthorized => "unauthorized",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Server => "server",
        ErrorKind::Connection => "connection",
        ErrorKind::Deadline => "deadline",
        ErrorKind::BrokenOff => "broken_off",
        _ => "unexpected",
    }
}
