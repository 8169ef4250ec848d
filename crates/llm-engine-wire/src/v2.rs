//! LLM Engine's second API: `/v2/chat/completions` and `/v2/completions`, OpenAI's requests and answers with the checks of
//! LLM Engine's own servers.
//!
//! Their lax reading (`"yes"` for true, `"0.5"` for a number) is undone here: what comes out is plain OpenAI.

mod fields;

use serde_json::Value;

use crate::openai::{InvalidRequest, Kind, Request};
use crate::validation::{Body, Fields, Problem, body_schema};

/// Why a request can't be served as it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Answered with 422 and all problems.
    #[error("the request has {} problems", .0.len())]
    Invalid(Vec<Problem>),
    /// Within the documented bounds, but nothing that a model can do: answered with 400.
    #[error(transparent)]
    Refused(#[from] InvalidRequest),
}

/// Checks a body. Fields that nobody here knows pass through.
///
/// # Errors
/// [`RequestError::Invalid`] holds every problem that can be found at once.
pub fn read(kind: Kind, body: &Body) -> Result<Request, RequestError> {
    let sent = body
        .fields()
        .map_err(|problem| RequestError::Invalid(vec![*problem]))?;
    let mut checked = Fields::new(sent);
    let mut fields = sent.clone();
    for field in fields::of(kind) {
        let read = |value: &_| field.form.read(value);
        let value = if field.is_required {
            checked.required(field.name, read)
        } else {
            checked.optional(field.name, read)
        };
        if let Some(Some(value)) = value {
            fields.insert(field.name.to_owned(), value);
        }
    }
    match checked.into_problems() {
        problems if problems.is_empty() => Ok(Request::from_fields(kind, fields)?),
        problems => Err(RequestError::Invalid(problems)),
    }
}

/// The JSON schema of a request of that route.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    body_schema(fields::of(kind).copied())
}
