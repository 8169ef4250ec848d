//! From LLM Engine's v1 to OpenAI's dialect and back.

use serde_json::{Map, Value, json};

use crate::openai::{Chunk, InvalidRequest, Kind, Request, Response, Usage};
use crate::v1::{CompletionRequest, Frame, Guided, Output, StreamOutput, SyncResponse, TokenOutput};

/// The same request in OpenAI's dialect: on the completions route, or, where prompts shall go through the model's chat
/// template, as a chat of one message.
///
/// # Errors
/// [`InvalidRequest`] if a value is one that only v1 allows.
pub fn to_openai(request: &CompletionRequest, prompt_as_chat: bool) -> Result<Request, InvalidRequest> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("model", request.model.as_str().into());
    let kind = if prompt_as_chat {
        set("messages", json!([{ "role": "user", "content": request.prompt }]));
        Kind::Chat
    } else {
        set("prompt", request.prompt.as_str().into());
        Kind::Completion
    };
    set("max_tokens", request.max_new_tokens.into());
    set("temperature", request.temperature.into());
    if !request.stop_sequences.is_empty() {
        set("stop", request.stop_sequences.as_slice().into());
    }
    if let Some(penalty) = request.presence_penalty {
        set("presence_penalty", penalty.into());
    }
    if let Some(penalty) = request.frequency_penalty {
        set("frequency_penalty", penalty.into());
    }
    if let Some(top_k) = request.top_k {
        // More tokens than any model has are all of them.
        set("top_k", top_k.min(i64::from(i32::MAX)).into());
    }
    if let Some(top_p) = request.top_p {
        // OpenAI's dialect is read in single precision, in which the smallest numbers would be 0.
        set("top_p", top_p.max(f64::from(f32::MIN_POSITIVE)).into());
    }
    if request.include_stop_str_in_output {
        set("include_stop_str_in_output", true.into());
    }
    if !request.skip_special_tokens {
        set("skip_special_tokens", false.into());
    }
    match &request.guided {
        Some(Guided::Json(schema)) => set("guided_json", Value::Object(schema.clone())),
        Some(Guided::Regex(regex)) => set("guided_regex", regex.as_str().into()),
        Some(Guided::Choice(choices)) => set("guided_choice", choices.as_slice().into()),
        Some(Guided::Grammar(grammar)) => set("guided_grammar", grammar.as_str().into()),
        None => None,
    };
    if request.return_token_log_probs {
        // The chat route wants a switch, the completions route the number of alternatives.
        set("logprobs", if prompt_as_chat { true.into() } else { 1.into() });
    }
    Request::from_fields(kind, fields)
}

/// The answer of the sync route.
#[must_use]
pub fn to_sync_response(request_id: &str, response: &Response) -> SyncResponse {
    let choice = response.choices.first();
    let message = choice
        .and_then(|choice| choice.message.as_ref())
        .map(|message| message.content.as_str());
    let text = message.or_else(|| choice.and_then(|choice| choice.text.as_deref()));
    SyncResponse {
        request_id: request_id.to_owned(),
        output: Output {
            text: text.unwrap_or_default().to_owned(),
            num_prompt_tokens: Some(response.usage.prompt_tokens),
            num_completion_tokens: response.usage.completion_tokens,
            tokens: choice.and_then(|choice| choice.logprobs.as_ref()).map(tokens),
        },
    }
}

/// A frame that adds the text of a chunk; `generated` is the number of tokens so far.
#[must_use]
pub fn to_frame(request_id: &str, chunk: &Chunk, generated: u64) -> Frame {
    let choice = chunk.choices.first();
    let text = choice.map_or("", |choice| choice.added_text());
    let tokens = choice.and_then(|choice| choice.logprobs.as_ref()).map(tokens);
    let token = tokens.and_then(|tokens| tokens.into_iter().next());
    StreamFrame {
        text,
        token,
        prompt_tokens: None,
        generated,
    }
    .under(request_id)
}

/// The last frame of a stream, which alone carries the number of prompt tokens.
#[must_use]
pub fn to_last_frame(request_id: &str, usage: Usage) -> Frame {
    let generated = usage.completion_tokens;
    StreamFrame {
        text: "",
        token: None,
        prompt_tokens: Some(usage.prompt_tokens),
        generated,
    }
    .under(request_id)
}

/// What differs between the frames of a stream; `prompt_tokens` are only known, and only told, in the last one.
struct StreamFrame<'a> {
    text: &'a str,
    token: Option<TokenOutput>,
    prompt_tokens: Option<u64>,
    generated: u64,
}

impl StreamFrame<'_> {
    fn under(self, request_id: &str) -> Frame {
        Frame {
            request_id: request_id.to_owned(),
            output: Some(StreamOutput {
                text: self.text.to_owned(),
                finished: self.prompt_tokens.is_some(),
                num_prompt_tokens: self.prompt_tokens,
                num_completion_tokens: Some(self.generated),
                token: self.token,
            }),
            error: None,
        }
    }
}

/// The tokens with their log-probabilities, from the form of either route.
fn tokens(logprobs: &Value) -> Vec<TokenOutput> {
    let list = |name: &str| {
        logprobs
            .get(name)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let token = |token: &Value, log_prob: &Value| {
        Some(TokenOutput {
            token: token.as_str()?.to_owned(),
            log_prob: log_prob.as_f64()?,
        })
    };
    let chat = list("content")
        .iter()
        .filter_map(|entry| token(entry.get("token")?, entry.get("logprob")?));
    let completion = list("tokens").iter().zip(list("token_logprobs"));
    chat.chain(completion.filter_map(|(name, log_prob)| token(name, log_prob)))
        .collect()
}
