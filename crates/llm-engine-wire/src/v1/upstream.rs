//! A request for a deployment that speaks this API, made of one in OpenAI's dialect.

use serde_json::Value;

use super::{CompletionRequest, Guided};
use crate::openai::{Kind, Request, Upstream};

/// Something is asked for that this API has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{field}' cannot be said in LLM Engine's v1 API as it is asked for")]
pub struct Unsayable {
    /// The first such field of the request.
    pub field: String,
}

impl Unsayable {
    fn field(name: &str) -> Self {
        Self {
            field: name.to_owned(),
        }
    }
}

impl CompletionRequest {
    /// The route's path below an upstream's base URL. The model is named in its query.
    #[must_use]
    pub const fn path(stream: bool) -> &'static str {
        if stream {
            "/llm/completions-stream"
        } else {
            "/llm/completions-sync"
        }
    }

    /// The same request to a deployment of this API. Nothing of it is passed over: a field without an equivalent may only say
    /// what is the case anyway.
    ///
    /// # Errors
    /// [`Unsayable`] if it says something else, or if the request is for another route than the completions.
    pub fn from_openai(request: &Request, upstream: &Upstream<'_>) -> Result<Self, Unsayable> {
        match request.kind {
            Kind::Completion => {}
            Kind::Chat => return Err(Unsayable::field("messages")),
            Kind::Embedding => return Err(Unsayable::field("input")),
        }
        let most = upstream.max_output_tokens.or(request.max_output_tokens());
        // OpenAI's dialect leaves the temperature out where it is 1.
        let mut translated = Self::new(upstream.model, "", most.unwrap_or(1), 1.0);
        for name in request.names() {
            if let Some(value) = request.field(name) {
                translated
                    .set(name, value)
                    .ok_or_else(|| Unsayable::field(name))?;
            }
        }
        if translated.temperature == 0.0 {
            // The likeliest token is among the likeliest ones, however many; but here it is wrong to ask for both.
            translated.top_k = None;
            translated.top_p = None;
        }
        Ok(translated)
    }

    /// Says what a field of OpenAI's dialect says; `None` if that is not possible.
    fn set(&mut self, name: &str, value: &Value) -> Option<()> {
        match name {
            // Said elsewhere, or nothing that changes an answer.
            "model" | "max_tokens" | "max_completion_tokens" | "stream" | "stream_options" | "user" => {}
            "prompt" => self.prompt = one_text(value)?.to_owned(),
            "temperature" => self.temperature = value.as_f64().filter(|it| (0.0..=1.0).contains(it))?,
            "top_p" => self.top_p = Some(value.as_f64()?),
            "top_k" => self.top_k = Some(value.as_i64()?),
            "presence_penalty" => self.presence_penalty = Some(penalty(value)?),
            "frequency_penalty" => self.frequency_penalty = Some(penalty(value)?),
            "stop" => self.stop_sequences = texts(value)?,
            "include_stop_str_in_output" => self.include_stop_str_in_output = value.as_bool()?,
            "skip_special_tokens" => self.skip_special_tokens = value.as_bool()?,
            // The token that was drawn, and at most one more, which here is always that one.
            "logprobs" => self.return_token_log_probs = value.as_u64().filter(|it| *it <= 1).map(|_| true)?,
            "guided_json" => self.guide(Guided::Json(value.as_object()?.clone()))?,
            "guided_regex" => self.guide(Guided::Regex(value.as_str()?.to_owned()))?,
            "guided_choice" => self.guide(Guided::Choice(texts(value)?))?,
            "guided_grammar" => self.guide(Guided::Grammar(value.as_str()?.to_owned()))?,
            _ => return says_nothing(name, value).then_some(()),
        }
        Some(())
    }

    /// Only one form can be asked for.
    fn guide(&mut self, guided: Guided) -> Option<()> {
        self.guided.replace(guided).is_none().then_some(())
    }
}

/// Whether a field asks for no more than what this API does anyway.
fn says_nothing(name: &str, value: &Value) -> bool {
    let is = |number: f64| value.as_f64() == Some(number);
    match name {
        "n" | "repetition_penalty" | "length_penalty" => is(1.0),
        "best_of" => is(1.0) || is(0.0),
        "min_p" | "min_tokens" => is(0.0),
        "echo" | "use_beam_search" | "ignore_eos" => value == false,
        "spaces_between_special_tokens" | "add_special_tokens" => value == true,
        "suffix" => value == "",
        "logit_bias" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "response_format" => value["type"] == "text",
        _ => false,
    }
}

/// A prompt, or the only one of a list.
fn one_text(value: &Value) -> Option<&str> {
    match value {
        Value::Array(prompts) => match prompts.as_slice() {
            [prompt] => prompt.as_str(),
            _ => None,
        },
        prompt => prompt.as_str(),
    }
}

/// One text, or several.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(texts) => texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        text => Some(vec![text.as_str()?.to_owned()]),
    }
}

fn penalty(value: &Value) -> Option<f64> {
    value.as_f64().filter(|it| (0.0..=2.0).contains(it))
}
