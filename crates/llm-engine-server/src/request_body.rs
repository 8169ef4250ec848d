//! Reading the body of a request, bounded in size, in time, and in what it becomes in memory; and finding out what it says.

use std::future::pending;
use std::panic::resume_unwind;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use llm_engine_gateway::Gateway;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::authorization::authorize;
use crate::error_answer::ErrorAnswer;

/// The largest request body, in bytes. A prompt of the longest context in use is well below it.
pub(crate) const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The same for who has no API key: enough to be told by some routes what is wrong with it before 401.
const MAX_BODY_BYTES_UNKNOWN: usize = 64 * 1024;
/// So much of a body that is too large is read and thrown away: most clients listen only when they have sent everything.
pub(crate) const DISCARD_BYTES: u64 = 128 * 1024 * 1024;
/// How long a body may take to come.
pub(crate) const BODY: Duration = Duration::from_secs(60);
/// The most values in the JSON of a body: each takes some dozen bytes of memory, however short it is. A prompt of so many
/// token numbers fits no model.
pub(crate) const MAX_VALUES: usize = 256 * 1024;
/// A larger body takes more than a millisecond to be understood, in which nobody else would be served.
const LARGE_BODY_BYTES: usize = 128 * 1024;

/// The whole body.
pub(crate) async fn read_body(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ErrorAnswer> {
    let read = timeout(BODY, read(gateway, headers, body)).await;
    let bytes = read.map_err(|_| ErrorAnswer::body_too_slow(BODY))??;
    // Each value but the first has a character of its own before it.
    if bytes.len() > MAX_VALUES && values(&bytes) > MAX_VALUES {
        return Err(ErrorAnswer::too_many_values(MAX_VALUES));
    }
    Ok(bytes)
}

/// What a body says: found out here if it is small, else on another thread, so that other requests go on meanwhile.
pub(crate) async fn understood<T: Send + 'static>(
    body: &Bytes,
    understand: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> T {
    if body.len() <= LARGE_BODY_BYTES {
        return understand(body);
    }
    let body = body.clone();
    match spawn_blocking(move || understand(&body)).await {
        Ok(understood) => understood,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => pending().await,
        },
    }
}

async fn read(gateway: &Gateway, headers: &HeaderMap, mut body: Body) -> Result<Bytes, ErrorAnswer> {
    let declared = body.size_hint().lower();
    if declared > MAX_BODY_BYTES as u64 && (headers.contains_key(EXPECT) || declared > DISCARD_BYTES) {
        return Err(ErrorAnswer::body_too_large(MAX_BODY_BYTES));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut is_known = false;
    while let Some(piece) = next(&mut body).await? {
        let length = first.len().max(all.len()) + piece.len();
        if length > MAX_BODY_BYTES_UNKNOWN && !is_known {
            authorize(gateway, headers)?;
            is_known = true;
        }
        if length > MAX_BODY_BYTES {
            discard(&mut body, length as u64).await?;
            return Err(ErrorAnswer::body_too_large(MAX_BODY_BYTES));
        }
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn discard(body: &mut Body, mut length: u64) -> Result<(), ErrorAnswer> {
    while length <= DISCARD_BYTES
        && let Some(piece) = next(body).await?
    {
        length += piece.len() as u64;
    }
    Ok(())
}

/// The next bytes; `None` at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, ErrorAnswer> {
    while let Some(frame) = body.frame().await {
        // Either what it is cut into makes no sense, or the caller has gone.
        let frame = frame.map_err(|error| ErrorAnswer::unreadable_body(&error))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// How many values there are at most, if it is JSON. A field of an object counts as two, and its name takes memory, too.
pub(crate) fn values(json: &[u8]) -> usize {
    let mut values = 1;
    let mut in_string = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b',' | b':' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (json, most) in [
            ("1", 1),
            ("[]", 2),
            ("[1,2,3]", 4),
            (r#"{"a":1,"b":[true]}"#, 6),
            (r#""[,[,\",{""#, 1),
            (r#"["\\",1]"#, 3),
            ("", 1),
        ] {
            assert_eq!(values(json.as_bytes()), most, "{json}");
        }
    }
}
