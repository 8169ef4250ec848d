use axum::body::Bytes;
use llm_engine_wire::openai::{Chunk, ChunkChoice, DONE, Delta, Kind, Response, Usage};
use llm_engine_wire::sse::{LineEnd, event};

use crate::engine::FinishReason;
use crate::refusal::Refusal;

/// The form of one answer: the parts that stay the same in all its chunks.
#[derive(Debug)]
pub(super) struct AnswerForm {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Unix time, in seconds.
    pub(super) created: u64,
    pub(super) model: String,
    /// Whether each chunk carries the usage so far.
    pub(super) continuous_usage: bool,
    /// Whether a last chunk carries the usage.
    pub(super) include_usage: bool,
}

impl AnswerForm {
    /// The chunk that says who speaks; only chats have one.
    pub(super) fn role(&self, usage: Usage) -> Option<Chunk> {
        let delta = Delta {
            role: Some("assistant".to_owned()),
            content: Some(String::new()),
        };
        let choice = ChunkChoice {
            delta: Some(delta),
            ..ChunkChoice::default()
        };
        (self.kind == Kind::Chat).then(|| self.chunk(vec![choice], self.continuous_usage.then_some(usage)))
    }

    /// A chunk with text, and with the reason if it is the last with text.
    pub(super) fn text(&self, text: String, reason: Option<FinishReason>, usage: Usage) -> Chunk {
        let finish_reason = reason.map(|reason| finish_reason(reason).to_owned());
        let choice = match self.kind {
            Kind::Chat => {
                let delta = Delta {
                    role: None,
                    content: Some(text),
                };
                ChunkChoice {
                    delta: Some(delta),
                    finish_reason,
                    ..ChunkChoice::default()
                }
            }
            Kind::Completion | Kind::Embedding => ChunkChoice {
                text: Some(text),
                finish_reason,
                ..ChunkChoice::default()
            },
        };
        self.chunk(vec![choice], self.continuous_usage.then_some(usage))
    }

    /// The chunk with the usage, where it was asked for.
    pub(super) fn usage(&self, usage: Usage) -> Option<Chunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }

    /// The answer of a caller that did not ask for a stream.
    pub(super) fn whole(&self, text: String, reason: FinishReason, usage: Usage) -> Response {
        let mut response = Response::empty(self.kind);
        response.append(self.text(text, Some(reason), usage));
        response.usage = usage;
        response
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion | Kind::Embedding => "text_completion",
        };
        Chunk {
            id: self.id.clone(),
            object: object.to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        }
    }
}

/// The word of the dialect; `abort` is vLLM's.
fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled | FinishReason::Failed(_) => "abort",
    }
}

/// Server-sent events, as they are written one after the other.
#[derive(Debug, Default)]
pub(super) struct Events(String);

impl Events {
    pub(super) fn chunk(&mut self, chunk: &Chunk) {
        // Serialising a chunk cannot fail: its maps have texts for keys.
        self.0.push_str(&event(
            &serde_json::to_string(chunk).unwrap_or_default(),
            LineEnd::Lf,
        ));
    }

    pub(super) fn error(&mut self, refusal: &Refusal) {
        self.0.push_str(&event(
            &serde_json::to_string(&refusal.body).unwrap_or_default(),
            LineEnd::Lf,
        ));
    }

    pub(super) fn done(&mut self) {
        self.0.push_str(&event(DONE, LineEnd::Lf));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.0)
    }
}
