//! From a request in OpenAI's dialect to what the engine does.

use std::num::NonZeroU32;

use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::{Kind, Request, Sampling, Stop};
use serde_json::Value;

use crate::messages;
use crate::model::Model;
use crate::refusal::Refusal;
use crate::unsupported::refuse_unsupported;

/// The longest stop sequence, in bytes: it bounds how much text is held back, and how long the search for it takes.
const MAX_STOP_BYTES: usize = 1024;

/// The most stop sequences: each is searched for with every token, on the thread that all requests share.
const MAX_STOPS: usize = 256;

/// What the engine does for one request: checked, so that nothing in it can trip an assertion of llama.cpp.
#[derive(Debug)]
pub(crate) struct Generation {
    /// At least one token.
    pub(crate) prompt: Vec<LlamaToken>,
    /// At least 1; with the prompt it fits into the context of one request.
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) stop_sequences: Vec<String>,
    pub(crate) include_stop: bool,
    /// Whether to go on after the model's own end of the answer (vLLM's extension, for load tests).
    pub(crate) ignore_eos: bool,
    /// Whether each decode step is reported, also when its text is held back.
    pub(crate) report_each_token: bool,
}

impl Generation {
    /// Checks a request and counts its prompt. `default_max_tokens` is for a chat that names no maximum.
    ///
    /// # Errors
    /// A refusal, always the caller's fault.
    pub(crate) fn prepare(
        model: &Model,
        default_max_tokens: NonZeroU32,
        request: Request,
    ) -> Result<Self, Refusal> {
        refuse_unsupported(&request)?;
        let stop_sequences = read_stops(request.sampling.stop.as_ref())?;
        let ignore_eos = match request.field("ignore_eos") {
            None => false,
            Some(Value::Bool(ignore)) => *ignore,
            Some(_) => {
                return Err(Refusal::invalid(
                    "ignore_eos",
                    "'ignore_eos' must be true or false",
                ));
            }
        };
        let prompt = match request.kind {
            Kind::Chat => chat_prompt(model, request.field("messages"))?,
            Kind::Completion => text_prompt(model, request.field("prompt"))?,
            Kind::Embedding => return Err(Refusal::unsupported("input", "an embedding")),
        };
        let max_tokens = max_tokens(model, &request, prompt.len(), default_max_tokens)?;
        Ok(Self {
            prompt,
            max_tokens,
            stop_sequences,
            include_stop: request.sampling.include_stop_str_in_output.unwrap_or(false),
            ignore_eos,
            report_each_token: request.stream && request.continuous_usage,
            sampling: request.sampling,
        })
    }
}

/// The tokens of a prompt that is used as it is.
///
/// # Errors
/// A 400: it is not a text, or too long, or holds a NUL, or is empty where the model has no token to begin with.
pub(crate) fn text_prompt(model: &Model, prompt: Option<&Value>) -> Result<Vec<LlamaToken>, Refusal> {
    match prompt {
        Some(Value::String(text)) => model.tokenize("prompt", text),
        _ => Err(Refusal::unsupported("prompt", "a 'prompt' that is not a text")),
    }
}

/// The tokens of a chat, after the model's chat template.
///
/// # Errors
/// A 400, as [`text_prompt`]; or the model has no template, or a message holds more than text.
pub(crate) fn chat_prompt(model: &Model, messages: Option<&Value>) -> Result<Vec<LlamaToken>, Refusal> {
    let lines = messages::read(messages.unwrap_or(&Value::Null))?;
    let text = model.render(lines)?;
    model.tokenize("messages", &text)
}

fn read_stops(stop: Option<&Stop>) -> Result<Vec<String>, Refusal> {
    let sequences = stop.map(Stop::sequences).unwrap_or_default();
    if sequences.len() > MAX_STOPS {
        let message = format!(
            "'stop' has {} sequences; it may have up to {MAX_STOPS}",
            sequences.len()
        );
        return Err(Refusal::invalid("stop", message));
    }
    if sequences.iter().any(String::is_empty) {
        return Err(Refusal::invalid("stop", "a 'stop' sequence can't be empty"));
    }
    if sequences.iter().any(|sequence| sequence.len() > MAX_STOP_BYTES) {
        let message = format!("a 'stop' sequence can't be longer than {MAX_STOP_BYTES} bytes");
        return Err(Refusal::invalid("stop", message));
    }
    Ok(sequences.to_vec())
}

fn max_tokens(
    model: &Model,
    request: &Request,
    prompt_tokens: usize,
    default_max_tokens: NonZeroU32,
) -> Result<usize, Refusal> {
    let context = model.context_tokens();
    let param = match request.kind {
        Kind::Chat => "messages",
        Kind::Completion => "prompt",
        Kind::Embedding => "input",
    };
    let left = context.saturating_sub(prompt_tokens);
    if left == 0 {
        let message = format!(
            "the prompt has {prompt_tokens} tokens; prompt and answer together may have {context} tokens"
        );
        return Err(Refusal::too_long(param, message));
    }
    let Some(asked) = request.max_output_tokens() else {
        let default = usize::try_from(default_max_tokens.get()).unwrap_or(usize::MAX);
        return Ok(default.min(left));
    };
    match usize::try_from(asked) {
        Ok(asked) if asked <= left => Ok(asked),
        _ => Err(Refusal::too_long(
            param,
            format!(
                "the prompt has {prompt_tokens} tokens and the answer may have {asked}; \
                 prompt and answer together may have {context} tokens"
            ),
        )),
    }
}
