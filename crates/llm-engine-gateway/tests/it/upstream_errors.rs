//! What becomes of the errors that a deployment answers.

use std::time::Duration;

use llm_engine_gateway::{Failure, Fault};
use scripted_upstream::freeze;
use serde_json::{Value, json};

use crate::harness::{World, broken, request, spent, streaming};

/// The failure of a request that is answered so, streamed or not; asserts that the request alone is charged.
async fn failure(status: u16, headers: &'static [(&str, &str)], body: Value) -> Failure {
    let mut world = World::start().await;
    let mut failures = Vec::new();
    for request in [streaming(), request(json!({}))] {
        let body = body.clone();
        failures.push(
            world
                .failure_of(&request, move |exchange| exchange.answer(status, headers, body))
                .await,
        );
    }
    assert_eq!(world.spent(), spent(2, 0, 0), "status {status}");
    world.assert_place_is_free().await;
    let failure = failures.pop().unwrap();
    assert_eq!(failures, std::slice::from_ref(&failure), "streamed or not");
    failure
}

#[tokio::test]
async fn a_request_that_is_rejected_is_the_caller_s_to_change_and_told_in_the_deployment_s_words() {
    let _frozen = freeze();
    for status in [400, 413, 422] {
        let error = json!({ "error": {
            "message": "too long", "type": "x", "param": "prompt", "code": "context_length_exceeded",
        } });
        let rejected = failure(status, &[], error).await;
        let expected = Failure::Rejected {
            message: "too long".to_owned(),
            code: Some("context_length_exceeded".to_owned()),
            param: Some("prompt".to_owned()),
        };
        assert_eq!(rejected, expected);
        assert_eq!(rejected.fault(), Fault::Caller);
        assert_eq!((rejected.status(), rejected.code()), (400, "upstream_rejected"));
        assert_eq!(rejected.retry_after(), None);
    }
}

#[tokio::test]
async fn a_rejection_with_a_number_for_a_code_or_without_words_is_one_all_the_same() {
    let _frozen = freeze();
    let numbered = failure(400, &[], json!({ "error": { "message": "m", "code": 400 } })).await;
    let Failure::Rejected { message, code, param } = numbered else {
        panic!("{numbered:?}")
    };
    assert_eq!((message.as_str(), code, param), ("m", None, None));
    for body in [
        json!({}),
        json!({ "detail": "d" }),
        json!("x"),
        json!({ "error": "x" }),
    ] {
        let wordless = failure(422, &[], body).await;
        assert!(wordless.to_string().contains("422"), "{wordless}");
        assert_eq!(wordless.fault(), Fault::Caller);
    }
}

#[tokio::test]
async fn what_is_between_us_and_the_deployment_is_its_failure() {
    let _frozen = freeze();
    for status in [401, 403, 404, 405, 408, 409, 500, 502, 503, 504, 529, 302, 304] {
        let failed = failure(status, &[], json!({})).await;
        assert_eq!(failed.fault(), Fault::Upstream);
        assert_eq!((failed.status(), failed.code()), (502, "upstream_failed"));
        assert!(broken(failed).contains(&status.to_string()));
    }
}

#[tokio::test]
async fn a_failure_of_the_deployment_does_not_tell_callers_our_credential() {
    let _frozen = freeze();
    let key = "sk-our-own-credential";
    let mut world = World::with_credential(key).await;
    let words =
        format!("Incorrect API key provided: {key}. You can find your API key at https://example.com.");
    let failed = world
        .failure(|exchange| {
            assert_eq!(exchange.headers["authorization"], format!("Bearer {key}"));
            exchange.answer(
                401,
                &[],
                json!({ "error": { "message": words, "code": "invalid_api_key" } }),
            );
        })
        .await;
    assert!(!failed.to_string().contains(key), "{failed}");
    assert!(!format!("{failed:?}").contains(key), "{failed:?}");
}

#[tokio::test]
async fn a_429_carries_the_deployment_s_hint_and_the_more_exact_one_of_two() {
    let _frozen = freeze();
    for (headers, expected) in [
        (&[("retry-after", "7")][..], Duration::from_secs(7)),
        (&[("retry-after", "0.25")], Duration::from_millis(250)),
        (&[("retry-after-ms", "1500")], Duration::from_millis(1500)),
        (
            &[("retry-after", "2"), ("retry-after-ms", "1500")],
            Duration::from_millis(1500),
        ),
        (&[("retry-after", " 3 ")], Duration::from_secs(3)),
        (&[("retry-after", "0")], Duration::ZERO),
    ] {
        let limited = failure(429, headers, json!({})).await;
        assert_eq!(limited.retry_after(), Some(expected), "{headers:?}");
        assert_eq!((limited.status(), limited.code()), (429, "upstream_limited"));
        assert_eq!(limited.fault(), Fault::Upstream);
    }
}

#[tokio::test]
async fn a_429_without_a_usable_hint_is_a_second() {
    let _frozen = freeze();
    for headers in [
        &[][..],
        &[("retry-after", "soon")],
        &[("retry-after", "")],
        &[("retry-after", "-5")],
        &[("retry-after", "nan")],
        &[("retry-after", "inf")],
        &[("retry-after", "1e300")],
        &[("retry-after-ms", "-1")],
    ] {
        let limited = failure(429, headers, json!({})).await;
        assert_eq!(limited.retry_after(), Some(Duration::from_secs(1)), "{headers:?}");
    }
}

#[tokio::test]
async fn an_unusable_hint_in_milliseconds_leaves_the_one_in_seconds() {
    let _frozen = freeze();
    for milliseconds in ["soon", "", "-5", "nan", "inf"] {
        let headers: &'static [(&str, &str)] =
            Box::leak(Box::new([("retry-after-ms", milliseconds), ("retry-after", "7")]));
        let limited = failure(429, headers, json!({})).await;
        assert_eq!(
            limited.retry_after(),
            Some(Duration::from_secs(7)),
            "{milliseconds:?}"
        );
    }
}

#[tokio::test]
async fn a_hint_beyond_all_reason_sends_nobody_away_for_years() {
    let _frozen = freeze();
    let limited = failure(429, &[("retry-after", "1000000000000")], json!({})).await;
    let day = Duration::from_secs(86_400);
    assert!(limited.retry_after().unwrap() <= day, "{limited:?}");
}
