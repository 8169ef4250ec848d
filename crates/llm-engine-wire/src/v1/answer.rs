//! What a deployment that speaks this API answers, in OpenAI's dialect.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CompletionRequest, StreamOutput, SyncResponse, TokenOutput};
use crate::openai::{Chunk, ChunkChoice, Usage};
use crate::said::Said;

/// Reads the answer to one request, whole or as a stream.
#[derive(Debug, Clone)]
pub struct AnswerReader {
    model: String,
    max_new_tokens: u64,
    created: u64,
    /// How many characters have been streamed.
    text_offset: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The deployment says so.
    #[error("{message}")]
    Said {
        /// The HTTP status that it would have been.
        status: Option<u16>,
        /// One sentence for a person.
        message: String,
    },
    /// It is nothing that this API has.
    #[error("not an answer of LLM Engine's v1 API: {0}")]
    Json(#[from] serde_json::Error),
}

/// An event of the stream, read no more strictly than needed.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    request_id: String,
    output: Option<StreamOutput>,
    error: Option<Value>,
}

impl AnswerReader {
    /// For the answer to that request, made at that Unix time, in seconds.
    #[must_use]
    pub fn new(request: &CompletionRequest, created: u64) -> Self {
        Self {
            model: request.model.clone(),
            max_new_tokens: request.max_new_tokens,
            created,
            text_offset: 0,
        }
    }

    /// The answer of the sync route as a text completion, in JSON. It has no usage if the deployment did not count the prompt.
    ///
    /// # Errors
    /// [`AnswerError`] if it is none.
    pub fn whole(&self, body: &[u8]) -> Result<String, AnswerError> {
        let SyncResponse { request_id, output } = serde_json::from_slice(body)?;
        let logprobs = output.tokens.map(|tokens| logprobs(&tokens, 0));
        let prompt_tokens = output.num_prompt_tokens;
        let usage = prompt_tokens.map(|prompt| Usage::new(prompt, output.num_completion_tokens));
        let choice = ChunkChoice {
            text: Some(output.text),
            logprobs,
            finish_reason: Some(self.finish_reason(Some(output.num_completion_tokens))),
            ..ChunkChoice::default()
        };
        // A whole text completion has the fields of a chunk.
        Ok(json!(self.chunk(&request_id, vec![choice], usage)).to_string())
    }

    /// What an event of the stream says: a chunk with what it adds, and at the end another one with the usage alone.
    ///
    /// # Errors
    /// [`AnswerError`] if it is an error, or no event; nothing good follows.
    pub fn event(&mut self, data: &[u8]) -> Result<Vec<Chunk>, AnswerError> {
        let event: Event = serde_json::from_slice(data)?;
        if let Some(error) = event.error {
            return Err(said(&error));
        }
        let Some(output) = event.output else {
            return Ok(Vec::new());
        };
        let offset = self.text_offset;
        self.text_offset += output.text.chars().count();
        let token = output.token.as_slice();
        let generated = output.num_completion_tokens;
        let choice = ChunkChoice {
            text: Some(output.text),
            logprobs: (!token.is_empty()).then(|| logprobs(token, offset)),
            finish_reason: output.finished.then(|| self.finish_reason(generated)),
            ..ChunkChoice::default()
        };
        let mut chunks = vec![self.chunk(&event.request_id, vec![choice], None)];
        if output.finished
            && let (Some(prompt), Some(generated)) = (output.num_prompt_tokens, generated)
        {
            let usage = Usage::new(prompt, generated);
            chunks.push(self.chunk(&event.request_id, Vec::new(), Some(usage)));
        }
        Ok(chunks)
    }

    fn chunk(&self, request_id: &str, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        Chunk {
            id: request_id.to_owned(),
            object: "text_completion".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        }
    }

    /// This API does not tell: an answer with all tokens that it may have was cut off there, most likely.
    fn finish_reason(&self, generated: Option<u64>) -> String {
        let is_cut_off = generated.is_some_and(|generated| generated >= self.max_new_tokens);
        if is_cut_off { "length" } else { "stop" }.to_owned()
    }
}

/// The tokens as the completions route lists them; the first begins at that character of the answer.
fn logprobs(tokens: &[TokenOutput], offset: usize) -> Value {
    let offsets = tokens.iter().scan(offset, |offset, token| {
        let begin = *offset;
        *offset += token.token.chars().count();
        Some(begin)
    });
    json!({
        "tokens": tokens.iter().map(|token| &token.token).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.log_prob).collect::<Vec<_>>(),
        "top_logprobs": null,
        "text_offset": offsets.collect::<Vec<_>>(),
    })
}

/// `{"status_code": …, "content": {"error": …}}`, or whatever else stands in its place.
fn said(error: &Value) -> AnswerError {
    let status = error["status_code"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let content = &error["content"];
    let messages = [&content["error"], content, error].map(|error| Said::from_error(error).message);
    let message = messages.into_iter().flatten().next();
    AnswerError::Said {
        status,
        message: message.unwrap_or_else(|| "its stream ends with an error".to_owned()),
    }
}
