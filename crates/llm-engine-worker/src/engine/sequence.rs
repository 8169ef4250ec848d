use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Usage;

use super::event::{Event, FinishReason, Submission};
use crate::counters::Counters;
use crate::model::Model;
use crate::sampler::Sampler;
use crate::text::AnswerText;

/// A request that holds a place.
#[derive(Debug)]
pub(super) struct Sequence {
    submission: Submission,
    pub(super) sampler: Sampler,
    text: AnswerText,
    /// When it got its place, counted in requests.
    pub(super) order: u64,
    /// How much of the prompt the model has read.
    read: usize,
    /// How many prompt tokens the current step carries.
    reading: usize,
    /// How many tokens were generated.
    generated: usize,
    /// The token that was generated last; the next step reads it.
    last: Option<LlamaToken>,
    /// The text of the last token.
    rest: String,
    /// The bytes of one token.
    piece: Vec<u8>,
}

impl Sequence {
    pub(super) fn begin(mut submission: Submission, order: u64) -> Self {
        let generation = &mut submission.generation;
        let stop_sequences = std::mem::take(&mut generation.stop_sequences);
        let text = AnswerText::new(stop_sequences, generation.include_stop);
        let sampler = Sampler::new(&generation.sampling);
        Self {
            submission,
            sampler,
            text,
            order,
            read: 0,
            reading: 0,
            generated: 0,
            last: None,
            rest: String::new(),
            piece: Vec::with_capacity(64),
        }
    }

    /// Whether somebody cancelled it, or nobody listens.
    pub(super) fn is_cancelled(&self) -> bool {
        self.submission.registration.is_cancelled() || self.submission.events.is_closed()
    }

    /// The part of the prompt that no step has carried yet.
    pub(super) fn unread(&self) -> &[LlamaToken] {
        &self.submission.generation.prompt[self.read + self.reading..]
    }

    /// The part of the prompt that the current step carries.
    pub(super) fn piece_to_read(&self) -> &[LlamaToken] {
        &self.submission.generation.prompt[self.read..self.read + self.reading]
    }

    /// The token for the next step, once the prompt is read.
    pub(super) fn last_token(&self) -> Option<LlamaToken> {
        self.last
    }

    /// How many tokens the cache holds of it: the last generated one is not read yet.
    pub(super) fn cached(&self) -> usize {
        self.read + self.generated.saturating_sub(1)
    }

    /// How many tokens may still be generated.
    pub(super) fn remaining(&self) -> usize {
        self.submission.generation.max_tokens - self.generated
    }

    /// Whether the current step carries something of it.
    pub(super) fn is_in_step(&self) -> bool {
        self.reading > 0 || self.last.is_some()
    }

    /// The current step carries that many prompt tokens.
    pub(super) fn plan_to_read(&mut self, tokens: usize) {
        self.reading = tokens;
    }

    /// The step was decoded; gives how many prompt tokens it carried.
    pub(super) fn note_read(&mut self) -> usize {
        let read = std::mem::take(&mut self.reading);
        self.read += read;
        read
    }

    /// Takes a generated token; gives the reason if it is the last one, else reports it.
    pub(super) fn accept(&mut self, model: &Model, token: LlamaToken) -> Option<FinishReason> {
        self.generated += 1;
        self.last = Some(token);
        let generation = &self.submission.generation;
        let is_end = model.ends_answer(token);
        if is_end && !generation.ignore_eos {
            return Some(FinishReason::Stop);
        }
        let mut text = String::new();
        let mut stopped = false;
        if !is_end {
            self.piece.clear();
            model.append_piece(token, &mut self.piece);
            stopped = self.text.push(&self.piece, &mut text);
        }
        let reason = if stopped {
            Some(FinishReason::Stop)
        } else {
            (self.generated >= generation.max_tokens).then_some(FinishReason::Length)
        };
        if reason.is_some() {
            self.rest = text;
        } else if !text.is_empty() || generation.report_each_token {
            // Nobody listening is seen as a cancel before the next step.
            let _ = self.submission.events.send(Event::Progress {
                text,
                usage: self.usage(),
            });
        }
        reason
    }

    /// Settles the request and says so to its reader. Its place must be cleared before: who learns that a request has
    /// ended may rely on the model not working on it any more.
    pub(super) fn end(mut self, reason: FinishReason, counters: &Counters) {
        let mut text = std::mem::take(&mut self.rest);
        self.text.finish(&mut text);
        let usage = self.usage();
        Counters::subtract(&counters.unfinished, 1);
        if reason == FinishReason::Cancelled {
            Counters::add(&counters.cancelled, 1);
        }
        self.submission.registration.settle(usage);
        // Nobody may be listening any more; the usage is kept in the registry.
        let _ = self.submission.events.send(Event::End { text, reason, usage });
    }

    /// Exactly what the model has done for it.
    fn usage(&self) -> Usage {
        let count = |tokens: usize| u64::try_from(tokens).unwrap_or(u64::MAX);
        Usage::new(count(self.read), count(self.generated))
    }
}
