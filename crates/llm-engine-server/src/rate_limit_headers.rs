//! The headers that say how the caller's quotas stand.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use llm_engine_gateway::{Counted, Level, Unit, milliseconds_up, unit_name};

/// Adds what is known of the caller's quotas, on success and on refusal alike:
///
/// - `RateLimit-Policy` and `RateLimit` (IETF draft "RateLimit header fields for HTTP"), one item per quota, named
///   `policy/unit`: `q` and `w` are the limit and its window in seconds, `r` what could be admitted now, `t` the seconds
///   until the quota is full again;
/// - `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` in OpenAI's form, for the quota with the least left.
pub fn add(headers: &mut HeaderMap, levels: &[Level]) {
    if levels.is_empty() {
        return;
    }
    let mut policies = String::new();
    let mut limits = String::new();
    for level in levels {
        let name = item_name(level);
        let separator = if policies.is_empty() { "" } else { ", " };
        let limit = level.limit.min(MAX_INTEGER);
        let remaining = level.remaining.min(MAX_INTEGER);
        let unit = structured_unit(level.counted);
        let (window, reset) = match level.counted {
            Counted::PerWindow { window, .. } => {
                (format!(";w={}", whole_seconds(window)), Some(level.full_in))
            }
            // Months differ in length, and so do days where clocks change.
            Counted::PerPeriod { .. } => (String::new(), Some(level.full_in)),
            Counted::Concurrency => (String::new(), None),
        };
        // Writing to a String can't fail.
        let _ = write!(policies, "{separator}{name};q={limit}{window}{unit}");
        let _ = write!(limits, "{separator}{name};r={remaining}");
        if let Some(reset) = reset {
            let _ = write!(limits, ";t={}", whole_seconds(reset));
        }
    }
    set(headers, "ratelimit-policy", policies);
    set(headers, "ratelimit", limits);
    add_openai(headers, levels, "requests", |unit| unit == Unit::Requests);
    add_openai(headers, levels, "tokens", |unit| {
        matches!(unit, Unit::InputTokens | Unit::OutputTokens | Unit::Tokens)
    });
}

/// The largest integer of a structured field (RFC 9651).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A structured-field string; the configuration allows no character in a name that would have to be escaped.
fn item_name(level: &Level) -> String {
    format!("\"{}/{}\"", level.policy, unit_name(level.counted))
}

/// Requests are what the draft counts if nothing is said; everything else is a unit of ours.
fn structured_unit(counted: Counted) -> &'static str {
    match counted.unit() {
        Some(Unit::Requests) => "",
        Some(Unit::InputTokens) => ";qu=\"input-tokens\"",
        Some(Unit::OutputTokens) => ";qu=\"output-tokens\"",
        Some(Unit::Tokens) => ";qu=\"tokens\"",
        Some(Unit::Usd) => ";qu=\"nano-usd\"",
        None => ";qu=\"concurrent-requests\"",
    }
}

fn add_openai(headers: &mut HeaderMap, levels: &[Level], name: &str, counts: impl Fn(Unit) -> bool) {
    let tightest = levels
        .iter()
        .filter(|level| level.counted.unit().is_some_and(&counts))
        .min_by_key(|level| level.remaining);
    let Some(level) = tightest else { return };
    set(
        headers,
        &format!("x-ratelimit-limit-{name}"),
        level.limit.to_string(),
    );
    set(
        headers,
        &format!("x-ratelimit-remaining-{name}"),
        level.remaining.to_string(),
    );
    set(
        headers,
        &format!("x-ratelimit-reset-{name}"),
        openai_duration(level.full_in),
    );
}

fn set(headers: &mut HeaderMap, name: &str, value: String) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

/// Rounded up: who waits that long has waited long enough.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).min(MAX_INTEGER)
}

/// As OpenAI writes durations: `850ms`, `1.2s`, `6m0s`, `1h30m0s`; rounded up to a millisecond.
fn openai_duration(duration: Duration) -> String {
    let milliseconds = milliseconds_up(duration);
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let _ = write!(text, "{}{point}{fraction}s", rest / 1000);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        let written = |milliseconds| openai_duration(Duration::from_millis(milliseconds));
        assert_eq!(written(0), "0ms");
        assert_eq!(written(850), "850ms");
        assert_eq!(written(1_000), "1s");
        assert_eq!(written(1_250), "1.25s");
        assert_eq!(written(360_000), "6m0s");
        assert_eq!(written(5_400_000), "1h30m0s");
        assert_eq!(openai_duration(Duration::from_nanos(1)), "1ms");
    }
}
