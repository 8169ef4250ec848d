use http::StatusCode;
use llm_engine_wire::openai::DONE;
use llm_engine_wire::said::Said;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::failed::Failed;

/// What an event of a stream, of any of the dialects, means for the one who carries it.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// Nothing that another attempt would not give as well.
    Empty,
    /// A part of the answer, or something unknown.
    Text,
    /// The last part: LLM Engine's own dialect says so in it.
    Last,
    /// The end, and no part: OpenAI's dialect.
    Done,
    /// An error in place of what is missing.
    Failure(Box<Failed>),
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    error: Value,
    output: Option<Output>,
    /// Every frame of LLM Engine's own dialect has one, also where the output is null.
    request_id: Option<IgnoredAny>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    text: String,
    #[serde(default)]
    finished: bool,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Map<String, Value>>,
    finish_reason: Option<IgnoredAny>,
}

impl Meaning {
    pub(crate) fn of(data: &[u8]) -> Self {
        if data == DONE.as_bytes() {
            return Self::Done;
        }
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            return Self::Text;
        };
        if !event.error.is_null() {
            return Self::Failure(Box::new(failure(&event.error)));
        }
        let is_empty = match (&event.output, &event.choices) {
            (Some(output), _) if output.finished => return Self::Last,
            (Some(output), _) => output.text.is_empty(),
            (None, Some(choices)) => choices.iter().all(Choice::is_empty),
            (None, None) => event.request_id.is_some(),
        };
        if is_empty { Self::Empty } else { Self::Text }
    }
}

impl Choice {
    fn is_empty(&self) -> bool {
        let no_text = self.text.as_deref().is_none_or(str::is_empty);
        let no_delta = self
            .delta
            .iter()
            .flatten()
            .all(|(name, value)| name == "role" || value.is_null() || value == "");
        no_text && no_delta && self.finish_reason.is_none()
    }
}

/// LLM Engine's own dialect has a status and `content`, OpenAI's the error object of its other answers.
fn failure(error: &Value) -> Failed {
    let status = error["status_code"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let said = match &error["content"]["error"] {
        Value::String(message) => Said {
            message: Some(message.clone()),
            ..Said::default()
        },
        Value::Null => Said::from_error(error),
        inner => Said::from_error(inner),
    };
    Failed::event(status.and_then(|status| StatusCode::from_u16(status).ok()), said)
}

#[cfg(test)]
mod tests {
    use llm_engine_retry::Judgement;

    use super::*;
    use crate::ErrorKind;

    fn word(data: &str) -> &'static str {
        match Meaning::of(data.as_bytes()) {
            Meaning::Empty => "empty",
            Meaning::Text => "text",
            Meaning::Last => "last",
            Meaning::Done => "done",
            Meaning::Failure(_) => "failure",
        }
    }

    #[test]
    fn only_what_adds_something_counts_as_text() {
        for (data, expected) in [
            (
                r#"{"request_id":"r","output":{"text":"a","finished":false},"error":null}"#,
                "text",
            ),
            (
                r#"{"request_id":"r","output":{"text":"","finished":false},"error":null}"#,
                "empty",
            ),
            (r#"{"request_id":"r","output":null,"error":null}"#, "empty"),
            (
                r#"{"request_id":"r","output":{"text":"","finished":true},"error":null}"#,
                "last",
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
                "empty",
            ),
            (
                r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#,
                "text",
            ),
            (r#"{"choices":[{"delta":{"tool_calls":[{}]}}]}"#, "text"),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, "text"),
            (r#"{"choices":[{"text":""}]}"#, "empty"),
            (r#"{"choices":[{"text":"a"}]}"#, "text"),
            (r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, "empty"),
            ("[DONE]", "done"),
            (r#"{"anything":1}"#, "text"),
            ("not JSON", "text"),
            ("", "text"),
        ] {
            assert_eq!(word(data), expected, "{data}");
        }
    }

    #[test]
    fn errors_of_both_dialects_are_understood() {
        let failed = |data: &str| match Meaning::of(data.as_bytes()) {
            Meaning::Failure(failed) => *failed,
            other => panic!("{other:?}"),
        };
        let ours = failed(
            r#"{"output":null,"error":{"status_code":502,"content":{"error":"gone","timestamp":"t"}}}"#,
        );
        assert_eq!((ours.status, ours.message.as_str()), (Some(502), "gone"));
        assert_eq!(
            (ours.kind, ours.judgement),
            (ErrorKind::Server, Judgement::Transient)
        );
        let openai = failed(r#"{"error":{"message":"m","type":"upstream_error","code":"upstream_failed"}}"#);
        assert_eq!(
            (openai.kind, openai.judgement),
            (ErrorKind::Server, Judgement::Transient)
        );
        let invalid = failed(r#"{"error":{"message":"m","type":"invalid_request_error","code":"x"}}"#);
        assert_eq!(
            (invalid.kind, invalid.judgement),
            (ErrorKind::Invalid, Judgement::Permanent)
        );
    }
}
