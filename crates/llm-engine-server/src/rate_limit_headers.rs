//! The headers that say how the caller's quotas stand.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
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
    headers.reserve(2 + REQUESTS.len() + TOKENS.len());
    LATEST.with_borrow_mut(|latest| {
        if !latest.describes(levels) {
            *latest = Described::of(levels);
        }
        headers.insert(RATELIMIT_POLICY, latest.policies.clone());
        let mut limits = String::with_capacity(latest.names.len() + 48 * levels.len());
        let mut names = latest.names.split_inclusive('=');
        for level in levels {
            limits.push_str(names.next().unwrap_or_default());
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
    quotas: Vec<(Arc<str>, Counted, u64)>,
    policies: HeaderValue,
    /// The beginning of each item of `RateLimit`, up to the number.
    names: String,
}

impl Described {
    fn of(levels: &[Level]) -> Self {
        let mut policies = String::with_capacity(64 * levels.len());
        let mut names = String::with_capacity(32 * levels.len());
        for level in levels {
            for text in [&mut policies, &mut names] {
                if !text.is_empty() {
                    text.push_str(", ");
                }
                // The configuration allows no character in a name that would have to be escaped.
                for part in ["\"", &level.policy, "/", unit_name(level.counted), "\""] {
                    text.push_str(part);
                }
            }
            policies.push_str(";q=");
            number(&mut policies, level.limit);
            // Months differ in length, and so do days where clocks change.
            if let Counted::PerWindow { window, .. } = level.counted {
                policies.push_str(";w=");
                number(&mut policies, whole_seconds(window));
            }
            policies.push_str(structured_unit(level.counted));
            names.push_str(";r=");
        }
        let quota = |level: &Level| (Arc::clone(&level.policy), level.counted, level.limit);
        Self {
            quotas: levels.iter().map(quota).collect(),
            policies: HeaderValue::try_from(policies).unwrap_or(HeaderValue::from_static("")),
            names,
        }
    }

    fn describes(&self, levels: &[Level]) -> bool {
        let is_same = |((policy, counted, limit), level): (&(Arc<str>, Counted, u64), &Level)| {
            Arc::ptr_eq(policy, &level.policy) && *counted == level.counted && *limit == level.limit
        };
        self.quotas.len() == levels.len() && self.quotas.iter().zip(levels).all(is_same)
    }
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
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let text = match (minutes / 60, minutes % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    match rest % 1000 {
        0 => format!("{text}{}s", rest / 1000),
        fraction => {
            let seconds = format!("{}.{fraction:03}", rest / 1000);
            format!("{text}{}s", seconds.trim_end_matches('0'))
        }
    }
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
