//! What servers say of when to come back, as they really write it.

use std::time::Duration;

use llm_engine_retry::{Hint, Limits};
use proptest::prelude::*;

/// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
const EXAMPLE: Duration = Duration::from_secs(784_111_777);

fn after(headers: &[(&str, &str)]) -> Option<Duration> {
    let header = |asked: &str| {
        headers
            .iter()
            .find(|(name, _)| *name == asked)
            .map(|(_, value)| *value)
    };
    Hint::from_headers(header, EXAMPLE - Duration::from_secs(7)).map(|hint| {
        assert!(!hint.is_booked);
        hint.after
    })
}

fn milliseconds(milliseconds: u64) -> Option<Duration> {
    Some(Duration::from_millis(milliseconds))
}

#[test]
fn milliseconds_go_before_seconds_and_seconds_before_everything_else() {
    let all = [
        ("retry-after-ms", "1430"),
        ("retry-after", "2"),
        ("ratelimit", "\"p\";r=0;t=9"),
    ];
    assert_eq!(after(&all), milliseconds(1430));
    assert_eq!(after(&all[1..]), milliseconds(2000));
    assert_eq!(after(&all[2..]), milliseconds(9000));
    assert_eq!(
        after(&[("x-ms-retry-after-ms", "250.5")]),
        Some(Duration::from_micros(250_500))
    );
}

#[test]
fn a_date_is_read_in_its_three_forms_and_one_in_the_past_is_now() {
    for date in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(after(&[("retry-after", date)]), milliseconds(7000), "{date}");
    }
    let past = "Sun, 06 Nov 1994 08:00:00 GMT";
    assert_eq!(after(&[("retry-after", past)]), milliseconds(0));
}

#[test]
fn seconds_may_have_a_fraction_but_no_sign() {
    assert_eq!(after(&[("retry-after", " 0.25 ")]), milliseconds(250));
    assert_eq!(after(&[("retry-after", "0")]), milliseconds(0));
    for nonsense in ["-1", "NaN", "inf", "1e300", "", "later"] {
        assert_eq!(after(&[("retry-after", nonsense)]), None, "{nonsense}");
    }
}

#[test]
fn of_the_draft_only_what_is_used_up_counts() {
    let limit = |value| after(&[("ratelimit", value)]);
    assert_eq!(limit("\"a\";r=0;t=7, \"b\";r=3;t=60"), milliseconds(7000));
    assert_eq!(limit("\"a\";r=0;t=7, \"b\";r=0;t=60"), milliseconds(60_000));
    assert_eq!(limit("\"a\";r=1;t=7"), None);
    assert_eq!(limit("limit=10, remaining=0"), None);
}

#[test]
fn openai_says_how_long_and_anthropic_says_when() {
    let openai = |remaining, reset| {
        after(&[
            ("x-ratelimit-remaining-requests", "5"),
            ("x-ratelimit-reset-requests", "9s"),
            ("x-ratelimit-remaining-tokens", remaining),
            ("x-ratelimit-reset-tokens", reset),
        ])
    };
    assert_eq!(openai("0", "6m0s"), milliseconds(360_000));
    assert_eq!(openai("0", "1h2m3.5s"), milliseconds(3_723_500));
    assert_eq!(openai("0", "850ms"), milliseconds(850));
    assert_eq!(openai("0", "1.5"), milliseconds(1500));
    assert_eq!(openai("7", "6m0s"), None);
    assert_eq!(openai("0", "6 minutes"), None);
    let anthropic = |remaining| {
        after(&[
            ("anthropic-ratelimit-input-tokens-remaining", remaining),
            ("anthropic-ratelimit-input-tokens-reset", "1994-11-06T08:50:00Z"),
        ])
    };
    assert_eq!(anthropic("0"), milliseconds(30_000));
    assert_eq!(anthropic("1000"), None);
}

#[test]
fn a_reset_is_a_wait_or_a_time() {
    assert_eq!(after(&[("x-ratelimit-reset", "30")]), milliseconds(30_000));
    // Today's times are above a thousand million; those of the example are not.
    let header = |name: &str| (name == "ratelimit-reset").then_some("1700000030");
    let hint = Hint::from_headers(header, Duration::from_secs(1_700_000_000));
    assert_eq!(hint.unwrap().after, Duration::from_secs(30));
}

#[test]
fn limits_are_those_of_requests_with_the_least_left() {
    let limits = |policies: &'static str, limits: &'static str| {
        Limits::from_headers(|name| match name {
            "ratelimit-policy" => Some(policies),
            "ratelimit" => Some(limits),
            _ => None,
        })
    };
    let of = |remaining, per_second| {
        Some(Limits {
            remaining,
            per_second,
        })
    };
    assert_eq!(
        limits("\"a\";q=10;w=1, \"b\";q=60;w=60", "\"a\";r=9;t=1, \"b\";r=9;t=9"),
        of(9, 1.0)
    );
    assert_eq!(
        limits(
            "\"a\";q=10;w=1, \"b\";q=900;w=60;qu=\"tokens\"",
            "\"a\";r=9;t=1, \"b\";r=0;t=9"
        ),
        of(9, 10.0)
    );
    assert_eq!(limits("\"a\";q=10;w=0", "\"a\";r=9;t=1"), None);
    assert_eq!(limits("\"a\";q=10;w=1", "\"b\";r=9;t=1"), None);
}

proptest! {
    #[test]
    fn nothing_that_a_server_can_say_is_too_much(name in prop::sample::select(vec![
        "retry-after-ms", "x-ms-retry-after-ms", "retry-after", "ratelimit", "x-ratelimit-reset",
        "ratelimit-reset", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset",
    ]), value in "\\PC*") {
        let header = |asked: &str| {
            if asked.ends_with("remaining-tokens") || asked.ends_with("tokens-remaining") {
                Some("0")
            } else {
                (asked == name).then_some(value.as_str())
            }
        };
        let _ = Hint::from_headers(header, EXAMPLE);
        let _ = Limits::from_headers(header);
    }

    #[test]
    fn a_duration_is_read_as_it_is_written(hours in 0..50_u64, minutes in 0..60_u64, milliseconds in 1..60_000_u64) {
        let written = format!("{hours}h{minutes}m{}.{:03}s", milliseconds / 1000, milliseconds % 1000);
        let read = after(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", &written)]);
        let expected = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_millis(milliseconds);
        let error = read.unwrap().abs_diff(expected);
        prop_assert!(error < Duration::from_micros(1), "{written}: {read:?}");
    }
}
