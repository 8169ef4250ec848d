//! From a request in OpenAI's dialect to what the engine does.

use std::num::NonZeroU32;

use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::{Kind, Request, Stop};
use serde_json::Value;

use crate::guided::{Form, Guide};
use crate::messages;
use crate::model::Model;
use crate::refusal::Refusal;
use crate::sampler::Settings;
use crate::unsupported::refuse_unsupported;

/// The longest stop sequence, in bytes: it bounds how much text is held back, and how long the search for it takes.
const MAX_STOP_BYTES: usize = 1024;

/// The most stop sequences: each is searched for with every token, on the thread that all requests share.
const MAX_STOPS: usize = 256;

/// The most answers to one request, over all of its prompts.
const MAX_CHOICES: usize = 128;

/// The most texts of one request.
const MAX_TEXTS: usize = 2048;

/// The most likeliest tokens beside each one that was generated.
const MAX_TOP_LOGPROBS: u64 = 20;

/// The most tokens at which an answer can end.
const MAX_STOP_TOKENS: usize = 256;

/// What the engine does for one request: checked, so that nothing in it can trip an assertion of llama.cpp.
#[derive(Debug)]
pub(crate) struct Generation {
    /// At least one, each of at least one token.
    pub(crate) prompts: Vec<Vec<LlamaToken>>,
    /// How many answers each prompt gets; at least 1.
    pub(crate) per_prompt: usize,
    /// Of one answer: at least 1; with any of the prompts it fits into the context of one answer.
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Settings,
    /// What the answers must look like.
    pub(crate) guide: Option<Guide>,
    /// With how many alternatives each token is reported; `None`: it isn't.
    pub(crate) top_logprobs: Option<usize>,
    pub(crate) stop_sequences: Vec<String>,
    pub(crate) include_stop: bool,
    /// Tokens that end the answer beside the model's own end.
    pub(crate) stop_tokens: Vec<LlamaToken>,
    /// Whether to go on after the model's own end of the answer (vLLM's extension, for load tests).
    pub(crate) ignore_eos: bool,
    /// Whether special tokens are written out.
    pub(crate) special_tokens: bool,
    /// Whether each decode step is reported, also when its text is held back.
    pub(crate) report_each_token: bool,
}

impl Generation {
    /// Checks a request and counts its prompts. `default_max_tokens` is for a chat that names no maximum. What the answer
    /// must look like is still to be compiled.
    ///
    /// # Errors
    /// A refusal, always the caller's fault.
    pub(crate) fn prepare(
        model: &Model,
        default_max_tokens: NonZeroU32,
        request: &Request,
    ) -> Result<(Self, Option<Form>), Refusal> {
        refuse_unsupported(request)?;
        let form = Form::read(request)?;
        let ignore_eos = switch(request, "ignore_eos", false)?;
        if ignore_eos && form.is_some() {
            let message = "'ignore_eos' can't go with a form that the answer must have";
            return Err(Refusal::invalid("ignore_eos", message));
        }
        let prompts = match request.kind {
            Kind::Chat => vec![chat_prompt(model, request.field("messages"))?],
            Kind::Completion => {
                text_prompts(model, "prompt", request.field("prompt").unwrap_or(&Value::Null))?
            }
            Kind::Embedding => return Err(Refusal::unsupported("input", "an embedding as a text")),
        };
        let per_prompt = usize::try_from(request.sampling.n.unwrap_or(1)).unwrap_or(usize::MAX);
        if prompts.len().saturating_mul(per_prompt) > MAX_CHOICES {
            let param = if per_prompt == 1 { "prompt" } else { "n" };
            let message =
                format!("a request may ask for {MAX_CHOICES} answers, those to all of its prompts together");
            return Err(Refusal::invalid(param, message));
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
        let max_tokens = max_tokens(model, request, longest, default_max_tokens)?;
        let generation = Self {
            prompts,
            per_prompt,
            max_tokens,
            sampling: Settings::read(model, request)?,
            guide: None,
            top_logprobs: top_logprobs(request)?,
            stop_sequences: read_stops(request.sampling.stop.as_ref())?,
            include_stop: request.sampling.include_stop_str_in_output.unwrap_or(false),
            stop_tokens: stop_tokens(model, request.field("stop_token_ids"))?,
            ignore_eos,
            special_tokens: !switch(request, "skip_special_tokens", true)?,
            report_each_token: request.stream && request.continuous_usage,
        };
        Ok((generation, form))
    }

    /// How many answers there are: those to the first prompt, then those to the second, …
    pub(crate) fn choices(&self) -> usize {
        self.prompts.len() * self.per_prompt
    }
}

fn switch(request: &Request, name: &str, default: bool) -> Result<bool, Refusal> {
    match request.field(name) {
        None => Ok(default),
        Some(Value::Bool(switch)) => Ok(*switch),
        Some(_) => Err(Refusal::invalid(name, format!("'{name}' must be true or false"))),
    }
}

/// The chat route has a switch and a number, the completions route only a number.
fn top_logprobs(request: &Request) -> Result<Option<usize>, Refusal> {
    let number = |name: &str| match request.field(name) {
        None => Ok(None),
        Some(value) => match value.as_u64().filter(|&number| number <= MAX_TOP_LOGPROBS) {
            Some(number) => Ok(usize::try_from(number).ok()),
            None => {
                let message =
                    format!("'{name}' is {value}; it must be a whole number from 0 to {MAX_TOP_LOGPROBS}");
                Err(Refusal::invalid(name, message))
            }
        },
    };
    if request.kind != Kind::Chat {
        if request.field("top_logprobs").is_some_and(|value| *value != 0) {
            let message = "'top_logprobs' belongs to chats; here 'logprobs' is the number";
            return Err(Refusal::invalid("top_logprobs", message));
        }
        return match request.field("logprobs") {
            Some(Value::Bool(false)) => Ok(None),
            _ => number("logprobs"),
        };
    }
    let top = number("top_logprobs")?;
    match (switch(request, "logprobs", false)?, top) {
        (true, top) => Ok(Some(top.unwrap_or_default())),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Refusal::invalid(
            "top_logprobs",
            "'top_logprobs' needs 'logprobs' to be true",
        )),
    }
}

fn stop_tokens(model: &Model, value: Option<&Value>) -> Result<Vec<LlamaToken>, Refusal> {
    let refuse = |message: String| Err(Refusal::invalid("stop_token_ids", message));
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(numbers)) if numbers.len() <= MAX_STOP_TOKENS => match tokens(model, numbers) {
            Some(tokens) => Ok(tokens),
            None => refuse("'stop_token_ids' has a number that is no token of this model".to_owned()),
        },
        Some(_) => refuse(format!(
            "'stop_token_ids' must be a list of up to {MAX_STOP_TOKENS} token numbers"
        )),
    }
}

/// `None` if one of them is no token of the model.
fn tokens(model: &Model, numbers: &[Value]) -> Option<Vec<LlamaToken>> {
    numbers
        .iter()
        .map(|number| model.token(number.as_i64()?))
        .collect()
}

/// Several texts: one text, a list of token numbers, or a list of either. `param` is the request's field.
///
/// # Errors
/// A 400: it is none of these, or too many, or as [`text_prompt`].
pub(crate) fn text_prompts(
    model: &Model,
    param: &str,
    value: &Value,
) -> Result<Vec<Vec<LlamaToken>>, Refusal> {
    match value {
        Value::Array(texts) if !texts.is_empty() && !texts.iter().all(Value::is_number) => {
            if texts.len() > MAX_TEXTS {
                let message = format!(
                    "'{param}' has {} texts; it may have up to {MAX_TEXTS}",
                    texts.len()
                );
                return Err(Refusal::invalid(param, message));
            }
            texts.iter().map(|text| text_prompt(model, param, text)).collect()
        }
        text => Ok(vec![text_prompt(model, param, text)?]),
    }
}

/// The tokens of one text that is used as it is, or whose token numbers are given.
///
/// # Errors
/// A 400: it is neither, or too long, or holds a NUL, or is empty where the model has no token to begin with.
pub(crate) fn text_prompt(model: &Model, param: &str, text: &Value) -> Result<Vec<LlamaToken>, Refusal> {
    match text {
        Value::String(text) => model.tokenize(param, text),
        Value::Array(numbers) if !numbers.is_empty() => tokens(model, numbers).ok_or_else(|| {
            Refusal::invalid(
                param,
                format!("'{param}' has something that is no token of this model"),
            )
        }),
        _ => Err(Refusal::invalid(
            param,
            format!("'{param}' must be a text or a list of token numbers"),
        )),
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
