use std::time::Duration;

use axum::body::to_bytes;
use axum::http::HeaderValue;
use llm_engine_gateway::{Counted, Level, Refusal, RefusalCode, Unit};
use serde_json::Value;

use crate::error_answer::{Dialect, ErrorAnswer};
use crate::rate_limit_headers;

/// A refusal as it is on the wire.
#[derive(Debug)]
pub(super) struct Example {
    /// The status and the headers.
    pub(super) head: String,
    /// The body, with more white space.
    pub(super) body: String,
}

/// No request has it.
const REQUEST_ID: &str = "6f1c1c55-0b63-4d0c-9c9c-0d6d4f2a8e11";

/// What is answered to the eleventh of eleven requests on a policy of 100 a minute, 10 at once. It is written by what writes
/// all refusals, so that it looks like them.
pub(super) async fn refusal() -> Example {
    let counted = Counted::PerWindow {
        unit: Unit::Requests,
        window: Duration::from_secs(60),
    };
    let refusal = Refusal {
        code: RefusalCode::RateLimited,
        message: "Policy per-key allows 100 requests per minute, this request asks for 1 and 0 are left; try again in \
                  0.6 s."
            .to_owned(),
        policy: Some("per-key".into()),
        limit: Some(100),
        counted: Some(counted),
        retry_after: Some(Duration::from_millis(600)),
        exact: true,
        booked: true,
    };
    let level = Level {
        policy: "per-key".into(),
        counted,
        limit: 100,
        remaining: 0,
        full_in: Duration::from_secs(6),
    };
    let mut response = ErrorAnswer::from(refusal).in_dialect(Dialect::LlmEngine, REQUEST_ID);
    rate_limit_headers::add(response.headers_mut(), &[level]);
    let id = HeaderValue::from_static(REQUEST_ID);
    response.headers_mut().insert("x-request-id", id);

    let (parts, body) = response.into_parts();
    let status = format!("HTTP/1.1 {}", parts.status);
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or_default()));
    let lines: Vec<String> = std::iter::once(status).chain(headers).collect();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Example {
        head: lines.join("\n"),
        body: format!("{body:#}"),
    }
}
