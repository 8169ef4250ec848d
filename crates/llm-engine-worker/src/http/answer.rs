use std::sync::Arc;

use axum::body::Bytes;
use llm_engine_wire::openai::{Chunk, ChunkChoice, DONE, Delta, Kind, Usage};
use llm_engine_wire::sse::{LineEnd, event};

use super::logprobs::logprobs;
use crate::engine::{Event, FinishReason};
use crate::model::Model;
use crate::refusal::Refusal;

/// The form of the answers to one request: the parts that stay the same in all their chunks, and what has been said.
#[derive(Debug)]
pub(super) struct AnswerForm {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Unix time, in seconds.
    pub(super) created: u64,
    pub(super) model_name: String,
    /// Whether each chunk carries the usage so far.
    pub(super) continuous_usage: bool,
    /// Whether a last chunk carries the usage.
    pub(super) include_usage: bool,
    pub(super) model: Arc<Model>,
    pub(super) said: Vec<Said>,
}

/// What has been said of one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    has_role: bool,
    /// Characters of the tokens whose likelihoods were told.
    offset: usize,
}

impl AnswerForm {
    /// The chunk that says who speaks, the first time; only chats have one.
    pub(super) fn role(&mut self, event: &Event) -> Option<Chunk> {
        let said = self.said.get_mut(event.choice)?;
        if self.kind != Kind::Chat || std::mem::replace(&mut said.has_role, true) {
            return None;
        }
        let delta = Delta {
            role: Some("assistant".to_owned()),
            content: Some(String::new()),
        };
        let choice = ChunkChoice {
            index: index(event),
            delta: Some(delta),
            ..ChunkChoice::default()
        };
        // The token of this event is counted in the chunk that follows.
        let before = Usage::new(
            event.usage.prompt_tokens,
            event.usage.completion_tokens.saturating_sub(1),
        );
        Some(self.chunk(vec![choice], self.continuous_usage.then_some(before)))
    }

    /// The chunk of an event, with the reason if it is the last of its answer.
    pub(super) fn event(&mut self, event: Event) -> Chunk {
        let mut choice = ChunkChoice {
            index: index(&event),
            finish_reason: event.reason.map(|reason| finish_reason(reason).to_owned()),
            ..ChunkChoice::default()
        };
        if let (Some(likelihood), Some(said)) = (&event.likelihood, self.said.get_mut(event.choice)) {
            choice.logprobs = Some(logprobs(&self.model, self.kind, likelihood, &mut said.offset));
        }
        match self.kind {
            Kind::Chat => {
                choice.delta = Some(Delta {
                    role: None,
                    content: Some(event.text),
                });
            }
            Kind::Completion | Kind::Embedding => choice.text = Some(event.text),
        }
        self.chunk(vec![choice], self.continuous_usage.then_some(event.usage))
    }

    /// The chunk with the usage, where it was asked for.
    pub(super) fn usage(&self, usage: Usage) -> Option<Chunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
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
            model: self.model_name.clone(),
            choices,
            usage,
        }
    }
}

fn index(event: &Event) -> u32 {
    u32::try_from(event.choice).unwrap_or(u32::MAX)
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
