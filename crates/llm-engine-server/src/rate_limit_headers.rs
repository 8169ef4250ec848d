//! The headers that say how the caller's quotas stand.

use std::cell::RefCell;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use llm_engine_gateway::{Counted, Level, Name, Unit, milliseconds_up, unit_name};

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
    headers.reserve(2 + REQUESTS.len() + TOKENS.len());
    LATEST.with_borrow_mut(|latest| {
        if !latest.describes(levels) {
            *latest = Described::of(levels);
        }
        headers.insert(RATELIMIT_POLICY, latest.policies.clone());
        let mut limits = String::with_capacity(80 * levels.len());
        for (level, (_, name)) in levels.iter().zip(&latest.quotas) {
            limits.push_str(name);
            number(&mut limits, level.remaining);
            if level.counted != Counted::Concurrency {
                limits.push_str(";t=");
                number(&mut limits, whole_seconds(level.full_in));
            }
        }
        set(headers, &RATELIMIT, limits);
    });
    add_openai(headers, levels, &REQUESTS, |unit| unit == Unit::Requests);
    add_openai(headers, levels, &TOKENS, |unit| {
        matches!(unit, Unit::InputTokens | Unit::OutputTokens | Unit::Tokens)
    });
}

thread_local! {
    /// What was said of the quotas of the request before: most callers have the same.
    static LATEST: RefCell<Described> = RefCell::new(Described::of(&[]));
}

/// What stays the same from answer to answer.
struct Described {
    /// Each with the beginning of its item of `RateLimit`, up to the number.
    quotas: Vec<((Name, Counted, u64), String)>,
    policies: HeaderValue,
}

impl Described {
    fn of(levels: &[Level]) -> Self {
        let mut policies = String::with_capacity(64 * levels.len());
        let mut quotas = Vec::with_capacity(levels.len());
        for level in levels {
            // The configuration allows no character in a name that would have to be escaped.
            let name = format!("\"{}/{}\"", level.policy, unit_name(level.counted));
            let separator = if policies.is_empty() { "" } else { ", " };
            policies.push_str(separator);
            policies.push_str(&name);
            policies.push_str(";q=");
            number(&mut policies, level.limit);
            // Months differ in length, and so do days where clocks change.
            if let Counted::PerWindow { window, .. } = level.counted {
                policies.push_str(";w=");
                number(&mut policies, whole_seconds(window));
            }
            policies.push_str(structured_unit(level.counted));
            quotas.push((quota(level), format!("{separator}{name};r=")));
        }
        Self {
            quotas,
            policies: HeaderValue::try_from(policies).unwrap_or(HeaderValue::from_static("")),
        }
    }

    fn describes(&self, levels: &[Level]) -> bool {
        let mut pairs = self.quotas.iter().zip(levels);
        self.quotas.len() == levels.len() && pairs.all(|((known, _), level)| *known == quota(level))
    }
}

fn quota(level: &Level) -> (Name, Counted, u64) {
    (level.policy, level.counted, level.limit)
}

/// Takes them out again.
pub(crate) fn take(headers: &mut HeaderMap) -> HeaderMap {
    let names = [RATELIMIT_POLICY, RATELIMIT]
        .into_iter()
        .chain(REQUESTS)
        .chain(TOKENS);
    let taken = names.filter_map(|name| {
        let value = headers.remove(&name)?;
        Some((name, value))
    });
    taken.collect()
}

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Limit, remaining, reset.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// The largest integer of a structured field (RFC 9651).
const MAX_INTEGER: u64 = 999_999_999_999_999;

fn number(text: &mut String, value: u64) {
    text.push_str(itoa::Buffer::new().format(value.min(MAX_INTEGER)));
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

fn add_openai(
    headers: &mut HeaderMap,
    levels: &[Level],
    [limit, remaining, reset]: &[HeaderName; 3],
    counts: impl Fn(Unit) -> bool,
) {
    let counted = levels
        .iter()
        .filter(|level| level.counted.unit().is_some_and(&counts));
    let Some(tightest) = counted.min_by_key(|level| level.remaining) else {
        return;
    };
    headers.insert(limit, HeaderValue::from(tightest.limit));
    headers.insert(remaining, HeaderValue::from(tightest.remaining));
    set(headers, reset, openai_duration(tightest.full_in));
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
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
    let mut text = String::with_capacity(16);
    if milliseconds < 1000 {
        number(&mut text, milliseconds);
        text.push_str("ms");
        return text;
    }
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    if hours > 0 {
        number(&mut text, hours);
        text.push('h');
    }
    if hours > 0 || minutes > 0 {
        number(&mut text, minutes);
        text.push('m');
    }
    number(&mut text, milliseconds / 1000 % 60);
    let fraction = milliseconds % 1000;
    if fraction > 0 {
        let digits = format!(".{fraction:03}");
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('s');
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
