//! Between Rust values and what is sent.

use bytes::Bytes;
use llm_engine_retry::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failed::Failed;
use crate::{Answer, Error};

pub(crate) fn written(value: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(value);
    let bytes =
        bytes.map_err(|error| Error::unsent(format!("the request can't be written as JSON: {error}")))?;
    Ok(bytes.into())
}

/// A request as its fields.
pub(crate) fn object(value: &impl Serialize) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::unsent("the request must be a JSON object")),
        Err(error) => Err(Error::unsent(format!(
            "the request can't be written as JSON: {error}"
        ))),
    }
}

pub(crate) fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let mut failed = Failed::unexpected(format!("the answer is not what was asked for: {error}"));
        failed.status = Some(answer.status.as_u16());
        failed.request_id = answer.request_id().map(str::to_owned);
        Error::new(failed, Reason::Permanent, answer.failed_attempts)
    })
}

/// A name as one segment of a URL's path.
pub(crate) fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}
