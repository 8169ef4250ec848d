//! Fields of OpenAI's dialect, and of vLLM's extensions, that this runner can't honour.
//!
//! A field that would change the answer is refused rather than ignored, unless its value asks for nothing: `null`,
//! `false`, an empty list, or what the runner does anyway.

use llm_engine_wire::openai::Request;
use serde_json::Value;

use crate::refusal::Refusal;

/// When the value of a field asks for nothing.
#[derive(Clone, Copy)]
enum Neutral {
    /// Only `null`.
    Absent,
    /// `false`, `""`, `[]` or `{}`.
    Nothing,
    /// `true`, which is what happens anyway.
    True,
    /// This number.
    Number(f64),
    /// This text.
    Text(&'static str),
    /// `["text"]`.
    TextOnly,
}

const FIELDS: &[(&str, Neutral)] = &[
    ("add_generation_prompt", Neutral::True),
    ("allowed_token_ids", Neutral::Nothing),
    ("audio", Neutral::Nothing),
    ("bad_words", Neutral::Nothing),
    ("best_of", Neutral::Number(1.0)),
    ("chat_template", Neutral::Nothing),
    ("chat_template_kwargs", Neutral::Nothing),
    ("continue_final_message", Neutral::Nothing),
    ("documents", Neutral::Nothing),
    ("echo", Neutral::Nothing),
    ("function_call", Neutral::Text("none")),
    ("functions", Neutral::Nothing),
    ("guided_decoding_backend", Neutral::Text("auto")),
    ("guided_whitespace_pattern", Neutral::Absent),
    ("length_penalty", Neutral::Number(1.0)),
    ("logits_processors", Neutral::Nothing),
    ("min_tokens", Neutral::Number(0.0)),
    ("modalities", Neutral::TextOnly),
    ("prediction", Neutral::Nothing),
    ("prompt_logprobs", Neutral::Nothing),
    ("reasoning_effort", Neutral::Text("none")),
    ("store", Neutral::Nothing),
    ("suffix", Neutral::Nothing),
    ("tool_choice", Neutral::Text("none")),
    ("tools", Neutral::Nothing),
    ("truncate_prompt_tokens", Neutral::Nothing),
    ("use_beam_search", Neutral::Nothing),
    ("web_search_options", Neutral::Nothing),
];

impl Neutral {
    fn matches(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Self::True, Value::Bool(true)) | (Self::Nothing, Value::Bool(false)) => true,
            (Self::Nothing, Value::String(text)) => text.is_empty(),
            (Self::Nothing, Value::Array(items)) => items.is_empty(),
            (Self::Nothing, Value::Object(fields)) => fields.is_empty(),
            (Self::Number(neutral), Value::Number(number)) => number.as_f64() == Some(neutral),
            (Self::Text(neutral), Value::String(text)) => text == neutral,
            (Self::TextOnly, Value::Array(items)) => items.len() == 1 && items[0] == "text",
            _ => false,
        }
    }
}

/// Refuses what the runner can't do.
///
/// # Errors
/// A 400 that names the first such field.
pub(crate) fn refuse_unsupported(request: &Request) -> Result<(), Refusal> {
    for (name, neutral) in FIELDS {
        if let Some(value) = request.field(name)
            && !neutral.matches(value)
        {
            return Err(Refusal::unsupported(name, &format!("'{name}'")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
