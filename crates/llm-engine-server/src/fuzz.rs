//! Whatever callers put into headers and queries: nothing panics, and what is taken is within its bounds.
//!
//! In the normal run some random inputs for each; `make fuzz` drives the same targets by what they reach.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use fuzz_input::{Input, check};

use crate::arrival::{address, fingerprint, preferred_wait};
use crate::authorization::credentials;
use crate::replay::Claim;
use crate::request_body::values;
use crate::routes::parameter;

/// One header a line.
const HEADERS: [&str; 5] = [
    "idempotency-key: 0b5c\nx-llm-engine-keep-seconds: 30",
    "prefer: respond-async, wait=30; foo=\"bar\"",
    "x-forwarded-for: 203.0.113.9, [2001:db8::1]:4711, 10.0.0.1",
    "authorization: Basic cm9vdDo=",
    "authorization: Bearer root",
];

fn headers(input: &Input) -> HeaderMap {
    let bytes = input.bytes(&HEADERS);
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.windows(2).position(|two| two == b": ") else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(&line[colon + 2..]);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

#[test]
fn headers_of_requests() {
    let trusted = [
        "10.0.0.0/8".parse().expect("a network"),
        "::/0".parse().expect("a network"),
    ];
    let peer = "10.1.1.1".parse().expect("an address");
    check!(|input: &Input| {
        let headers = headers(input);
        if let Ok(claim) = Claim::read(&headers) {
            assert!((1..=255).contains(&claim.key.len()));
            assert!(claim.keep <= Duration::from_secs(300));
        }
        assert!(preferred_wait(&headers) <= Duration::from_secs(60));
        let _ = address(peer, &headers, &trusted);
        let _ = fingerprint(&Uri::from_static("/v1/completions"), &headers, b"");
        let _ = credentials(&headers);
    });
}

#[test]
fn queries() {
    check!(|input: &Input| {
        let query = input.text(&[
            "model_endpoint_name=m",
            "a=%00%ff&model_endpoint_name=%C3%BC+x&&=&a",
        ]);
        if let Ok(uri) = format!("/v1?{query}").parse::<Uri>() {
            let _ = parameter(&uri, "model_endpoint_name");
        }
    });
}

#[test]
fn json_has_no_more_values_than_are_counted() {
    check!(|input: &Input| {
        let bytes = input.bytes(&[r#"{"a": [1, {"b": "x\"y"}], "c": null}"#, "[[[]]]"]);
        if let Ok(value) = serde_json::from_slice(&bytes) {
            assert!(count(&value) <= values(&bytes));
        }
    });
}

fn count(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(values) => 1 + values.iter().map(count).sum::<usize>(),
        serde_json::Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}
