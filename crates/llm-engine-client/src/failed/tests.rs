use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use llm_engine_retry::Judgement;

use super::*;

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Failed {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        })
        .collect();
    Failed::answer(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
}

fn hinted(milliseconds: u64, is_booked: bool) -> Judgement {
    Judgement::Hinted(Hint {
        after: Duration::from_millis(milliseconds),
        is_booked,
    })
}

#[test]
fn what_may_pass_is_transient_and_what_would_fail_again_is_not() {
    for status in [408, 429, 500, 502, 503, 504, 529] {
        assert_eq!(
            answer(status, &[], "").judgement,
            Judgement::Transient,
            "{status}"
        );
    }
    for status in [301, 400, 401, 402, 403, 404, 405, 409, 413, 422, 501] {
        assert_eq!(
            answer(status, &[], "").judgement,
            Judgement::Permanent,
            "{status}"
        );
    }
}

#[test]
fn the_server_s_word_goes_before_its_status() {
    for status in [400, 409, 501] {
        let failed = answer(status, &[("x-should-retry", "true")], "");
        assert_eq!(failed.judgement, Judgement::Transient, "{status}");
    }
    for status in [408, 429, 503] {
        let failed = answer(status, &[("x-should-retry", "false"), ("retry-after", "1")], "");
        assert_eq!(failed.judgement, Judgement::Permanent, "{status}");
    }
    let quota = answer(
        429,
        &[],
        r#"{"error": {"code": "insufficient_quota", "message": "m"}}"#,
    );
    assert_eq!(
        (quota.judgement, quota.kind),
        (Judgement::Permanent, ErrorKind::BudgetSpent)
    );
}

#[test]
fn a_hint_is_exact_where_it_can_be_and_booked_where_the_body_says_so() {
    let headers = [("retry-after", "2"), ("retry-after-ms", "1430")];
    assert_eq!(answer(429, &headers, "").judgement, hinted(1430, false));
    assert_eq!(
        answer(429, &headers, r#"{"error": {"booked": true}}"#).judgement,
        hinted(1430, true)
    );
    assert_eq!(answer(503, &headers[..1], "").judgement, hinted(2000, false));
    let body = r#"{"error": {"retry_after_ms": 70}}"#;
    assert_eq!(answer(429, &[], body).judgement, hinted(70, false));
}

#[test]
fn a_quota_that_stands_at_nothing_is_no_hint_where_nothing_was_refused() {
    let headers = [("ratelimit", r#""p";r=0;t=7"#)];
    assert_eq!(answer(429, &headers, "").judgement, hinted(7000, false));
    assert_eq!(answer(500, &headers, "").judgement, Judgement::Transient);
}

#[test]
fn it_reads_as_one_sentence() {
    let body = r#"{"detail": "Policy p allows 1 request per minute.", "error": {"code": "rate_limited", "policy": "p"}}"#;
    let failed = answer(429, &[("x-request-id", "r")], body);
    assert_eq!(
        failed.to_string(),
        "429 rate_limited: Policy p allows 1 request per minute"
    );
    assert_eq!(
        (failed.policy.as_deref(), failed.request_id.as_deref()),
        (Some("p"), Some("r"))
    );
    assert_eq!(answer(502, &[], "").to_string(), "502: Bad Gateway");
}
