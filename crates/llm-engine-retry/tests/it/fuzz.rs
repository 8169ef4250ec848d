//! Whatever a server says in its headers: nothing panics, and what is understood makes sense.
//!
//! In the normal run some random inputs for each; `make fuzz` drives the same targets by what they reach.

use std::time::Duration;

use fuzz_input::{Input, check};
use llm_engine_retry::{Hint, Limits};

/// One header a line.
const ANSWERS: [&str; 8] = [
    "retry-after-ms: 1430",
    "x-ms-retry-after-ms: 20\nretry-after: 2",
    "retry-after: Sun, 06 Nov 1994 08:49:37 GMT",
    "ratelimit: \"a\";r=0;t=7, \"b\";r=3;t=60",
    "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 1h2m3.5s\nx-ratelimit-limit-requests: 60",
    "anthropic-ratelimit-tokens-remaining: 0\nanthropic-ratelimit-tokens-reset: 2026-11-24T13:00:00Z",
    "x-ratelimit-reset: 1795522200",
    "ratelimit-policy: \"per-key/requests\";q=600;w=60;qu=\"requests\"\nratelimit: \"per-key/requests\";r=3;t=60",
];

fn headers<'a>(text: &'a str) -> impl Fn(&str) -> Option<&'a str> {
    |name| {
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

#[test]
fn hints() {
    check!(|input: &Input| {
        let text = input.text(&ANSWERS);
        let now = Duration::from_secs(u64::from(input.choice) << 24);
        if let Some(hint) = Hint::from_headers(headers(&text), now) {
            assert!(!hint.is_booked, "headers can't promise that");
        }
    });
}

#[test]
fn quotas() {
    check!(|input: &Input| {
        if let Some(limits) = Limits::from_headers(headers(&input.text(&ANSWERS))) {
            assert!(
                limits.per_second.is_finite() && limits.per_second > 0.0,
                "{limits:?}"
            );
        }
    });
}
