use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The target of the records, as `llm-engine-gateway` writes them.
pub(super) const TARGET: &str = "llm_engine::request";

/// The fields of a record that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) caller: String,
    pub(super) model: String,
    pub(super) route: String,
    pub(super) outcome: String,
    pub(super) asked_input_tokens: u64,
    pub(super) asked_output_tokens: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Only if it was admitted and a model had a place for it.
    pub(super) admitted_after_ms: Option<f64>,
    pub(super) duration_ms: f64,
}

/// A record and when its request ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) record: Record,
    pub(super) end: Timestamp,
    pub(super) begin: Timestamp,
}

/// Why a line of a log can't be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("this line is not JSON ({0}); the server writes a log of JSON with --log-format json")]
    NotJson(serde_json::Error),
    #[error("this record of a request can't be understood: {0}")]
    NotARecord(serde_json::Error),
    #[error("this record of a request has no timestamp such as 2026-11-24T08:14:01.5Z")]
    NoTimestamp,
    #[error("the duration of this request, {0} ms, is none")]
    Duration(f64),
}

/// The record of a line, if it is one of a request.
pub(super) fn read(line: &str) -> Result<Option<Ended>, LineError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let mut line: Value = serde_json::from_str(line).map_err(LineError::NotJson)?;
    if line["target"] != TARGET {
        return Ok(None);
    }
    let end: Option<Timestamp> = line["timestamp"].as_str().and_then(|text| text.parse().ok());
    let end = end.ok_or(LineError::NoTimestamp)?;
    // The server writes its fields beside the others; the usual JSON log of `tracing` has them in an object of their own.
    let fields = match line.get_mut("fields") {
        Some(fields) => fields.take(),
        None => line,
    };
    let record: Record = serde_json::from_value(fields).map_err(LineError::NotARecord)?;
    let invalid = LineError::Duration(record.duration_ms);
    let duration = milliseconds(record.duration_ms);
    let begin = duration.and_then(|duration| end.checked_sub(duration).ok());
    let begin = begin.ok_or(invalid)?;
    Ok(Some(Ended { record, end, begin }))
}

pub(super) fn milliseconds(count: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(count / 1e3).ok()
}
