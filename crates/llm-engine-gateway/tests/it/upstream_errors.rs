//! What becomes of the errors that a deployment answers.

use std::time::Duration;

use llm_engine_gateway::{Failure, Fault};
use scripted_upstream::freeze;
use serde_json::{Value, json};

use crate::harness::{World, broken, failed, request, spent, streaming};
use crate::raw_upstream::RawUpstream;

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
async fn a_rejection_is_understood_in_every_form_and_without_words_is_one_all_the_same() {
    let _frozen = freeze();
    for (body, words, code) in [
        (
            json!({ "error": { "message": "m", "code": 400 } }),
            "m",
            Some("400"),
        ),
        (json!({ "error": "m" }), "m", None),
        (json!({ "detail": "m" }), "m", None),
        (
            json!({ "detail": [{ "loc": ["body", "n"], "msg": "m" }] }),
            "body.n: m",
            None,
        ),
        (
            json!({ "object": "error", "message": "m", "code": 40001 }),
            "m",
            None,
        ),
        (
            json!({}),
            "the model server refuses the request with status 422 Unprocessable Entity",
            None,
        ),
    ] {
        let rejected = failure(422, &[], body.clone()).await;
        let expected = Failure::Rejected {
            message: words.to_owned(),
            code: code.map(str::to_owned),
            param: None,
        };
        assert_eq!(rejected, expected, "{body}");
    }
}

#[tokio::test]
async fn what_the_deployment_fails_at_is_its_fault() {
    let _frozen = freeze();
    for status in [408, 409, 500, 501, 502, 503, 504, 529] {
        let failed = failure(status, &[], json!({})).await;
        assert_eq!(failed.fault(), Fault::Upstream);
        assert_eq!((failed.status(), failed.code()), (502, "upstream_failed"));
        assert!(broken(failed).contains(&status.to_string()));
    }
}

#[tokio::test]
async fn what_only_our_operator_can_mend_is_our_operator_s_and_told_in_our_words() {
    let _frozen = freeze();
    let of_code = |code: &str| json!({ "error": { "message": "secret words", "code": code } });
    for (status, body, what_to_do) in [
        (401, of_code("x"), "api_key_env"),
        (403, of_code("x"), "api_key_env"),
        (407, of_code("x"), "proxy"),
        (404, of_code("x"), "url and model"),
        (405, of_code("x"), "url and model"),
        (302, of_code("x"), "redirects"),
        (308, of_code("x"), "redirects"),
        (400, of_code("invalid_api_key"), "api_key_env"),
        (402, of_code("x"), "no money left"),
        (429, of_code("insufficient_quota"), "no money left"),
        (
            429,
            json!({ "error": { "message": "m", "type": "insufficient_quota" } }),
            "no money left",
        ),
    ] {
        let failed = failure(status, &[("location", "http://127.0.0.1:9/elsewhere")], body).await;
        assert_eq!(failed.fault(), Fault::Operator, "{status}");
        assert_eq!((failed.status(), failed.code()), (502, "upstream_misconfigured"));
        assert_eq!(failed.retry_after(), None);
        let words = failed.to_string();
        assert!(
            words.contains(what_to_do) && words.contains(&status.to_string()),
            "{words}"
        );
        assert!(!words.contains("secret"), "{words}");
    }
}

/// The failure of a request that gets this body of this type.
async fn answered_with(stream: bool, status: &str, content_type: &str, body: &str) -> Failure {
    let raw = RawUpstream::start().await;
    let world = World::with(|setup| *setup = crate::harness::setup(&raw.url())).await;
    let request = request(json!({ "stream": stream }));
    let (answer, ()) = tokio::join!(world.complete(&request), async {
        let mut connection = raw.next().await;
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
        connection.write(&format!("{head}{body}")).await;
    });
    assert_eq!(world.spent(), spent(1, 0, 0));
    failed(answer)
}

#[tokio::test]
async fn a_page_for_people_is_not_passed_on_with_whatever_status() {
    let _frozen = freeze();
    let page = "<html><body>It works!</body></html>";
    for stream in [true, false] {
        for (status, expected) in [
            ("200 OK", "text/html"),
            ("503 Unavailable", "503"),
            ("500 No", "500"),
        ] {
            let words = broken(answered_with(stream, status, "text/html; charset=utf-8", page).await);
            assert!(words.contains(expected) && !words.contains("works"), "{words}");
        }
        let rejected = answered_with(stream, "400 Bad Request", "text/HTML", page).await;
        assert!(
            matches!(&rejected, Failure::Rejected { message, .. } if !message.contains("works")),
            "{rejected}"
        );
    }
}

#[tokio::test]
async fn a_success_that_is_an_error_is_a_failure_in_its_words() {
    let _frozen = freeze();
    let error = r#"{"error": {"message": "out of memory"}}"#;
    for stream in [true, false] {
        let words = broken(answered_with(stream, "200 OK", "application/json", error).await);
        assert!(words.contains("out of memory"), "{words}");
    }
}

#[tokio::test]
async fn an_answer_of_the_other_kind_is_a_failure() {
    let _frozen = freeze();
    let events = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
    assert!(broken(answered_with(false, "200 OK", "text/event-stream", events).await).contains("streamed"));
    let whole = r#"{"choices": [{"text": "a"}]}"#;
    assert!(
        broken(answered_with(true, "200 OK", "application/json", whole).await).contains("did not stream")
    );
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

/// When the deployment can be asked again after a 429 with these headers and this body.
async fn hinted(headers: &'static [(&str, &str)], body: Value) -> Duration {
    let mut world = World::start().await;
    let limited = world
        .failure(move |exchange| exchange.answer(429, headers, body))
        .await;
    assert_eq!((limited.status(), limited.code()), (429, "upstream_limited"));
    assert_eq!(limited.fault(), Fault::Upstream);
    assert_eq!(world.spent(), spent(1, 0, 0));
    limited.retry_after().unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_429_carries_the_deployment_s_hint_in_any_form() {
    let _frozen = freeze();
    let milliseconds = Duration::from_millis;
    for (headers, expected) in [
        (&[("retry-after", "7")][..], 7 * SECOND),
        (&[("retry-after", "0.25")], milliseconds(250)),
        (&[("retry-after", " 3 ")], 3 * SECOND),
        (&[("retry-after", "0")], Duration::ZERO),
        (&[("retry-after-ms", "1500")], milliseconds(1500)),
        (&[("x-ms-retry-after-ms", "1500")], milliseconds(1500)),
        (
            &[("retry-after", "2"), ("retry-after-ms", "1500")],
            milliseconds(1500),
        ),
        (&[("retry-after-ms", "soon"), ("retry-after", "7")], 7 * SECOND),
        // OpenAI: of what is used up, the later one.
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "6m0s"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "850ms"),
            ],
            360 * SECOND,
        ),
        (
            &[
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-reset-requests", "6m0s"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1.2s"),
            ],
            milliseconds(1200),
        ),
        // The IETF's draft.
        (
            &[("ratelimit", "\"day\";r=5;t=9000, \"minute\";r=0;t=11")],
            11 * SECOND,
        ),
    ] {
        assert_eq!(hinted(headers, json!({})).await, expected, "{headers:?}");
    }
    let of_llm_engine = json!({ "error": { "message": "m", "retry_after_ms": 1430 } });
    assert_eq!(hinted(&[], of_llm_engine).await, milliseconds(1430));
}

#[tokio::test]
async fn a_429_may_name_the_time_of_day() {
    let _frozen = freeze();
    // The clock of these tests began at noon.
    for headers in [
        &[("retry-after", "Tue, 24 Nov 2026 12:10:00 GMT")][..],
        &[
            ("anthropic-ratelimit-requests-remaining", "12"),
            ("anthropic-ratelimit-requests-reset", "2026-11-24T13:00:00Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-11-24T12:10:00Z"),
        ],
        &[("x-ratelimit-reset", "1795522200")],
    ] {
        let wait = hinted(headers, json!({})).await;
        assert!(
            (540 * SECOND..=600 * SECOND).contains(&wait),
            "{headers:?}: {wait:?}"
        );
    }
    let past = hinted(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], json!({})).await;
    assert_eq!(past, Duration::ZERO);
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
        &[
            ("x-ratelimit-remaining-requests", "5"),
            ("x-ratelimit-reset-requests", "6m0s"),
        ],
    ] {
        assert_eq!(hinted(headers, json!({})).await, SECOND, "{headers:?}");
    }
}

#[tokio::test]
async fn a_hint_beyond_all_reason_sends_nobody_away_for_years() {
    let _frozen = freeze();
    assert!(hinted(&[("retry-after", "1000000000000")], json!({})).await <= 86_400 * SECOND);
}
