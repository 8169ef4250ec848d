use std::rc::Rc;

use llama_cpp_2::token::LlamaToken;

use super::answers::Answers;
use super::event::{FinishReason, Likelihood};
use crate::counters::Counters;
use crate::guided::Guide;
use crate::model::Model;
use crate::sampler::{Sampler, Scratch, likelihood};
use crate::text::AnswerText;

/// One answer of a request that waits for a place.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answers: Rc<Answers>,
    pub(super) choice: usize,
}

/// One answer of a request that holds a place.
#[derive(Debug)]
pub(super) struct Sequence {
    answers: Rc<Answers>,
    choice: usize,
    sampler: Sampler,
    /// What the answer must look like.
    guide: Option<Guide>,
    text: AnswerText,
    /// When it got its place, counted in answers.
    pub(super) order: u64,
    /// How much of the prompt the model has read.
    read: usize,
    /// How many prompt tokens the current step carries.
    reading: usize,
    /// How many tokens were generated.
    generated: usize,
    /// The token that was generated last; the next step reads it.
    last: Option<LlamaToken>,
    /// The text of the last token, and how likely it was.
    rest: String,
    rest_likelihood: Option<Likelihood>,
    /// The bytes of one token.
    piece: Vec<u8>,
}

impl Sequence {
    pub(super) fn begin(waiting: Waiting, order: u64) -> Self {
        let Waiting { answers, choice } = waiting;
        let generation = &answers.generation;
        let text = AnswerText::new(generation.stop_sequences.clone(), generation.include_stop);
        let sampler = Sampler::new(&generation.sampling, answers.prompt(choice), choice);
        let guide = generation.guide.as_ref().map(Guide::another);
        Self {
            answers,
            choice,
            sampler,
            guide,
            text,
            order,
            read: 0,
            reading: 0,
            generated: 0,
            last: None,
            rest: String::new(),
            rest_likelihood: None,
            piece: Vec::with_capacity(64),
        }
    }

    /// Whether somebody cancelled it, or nobody listens.
    pub(super) fn is_cancelled(&self) -> bool {
        self.answers.is_cancelled()
    }

    /// Whether both answer the same prompt of the same request.
    pub(super) fn shares_prompt_with(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.answers, &other.answers)
            && self.answers.prompt_number(self.choice) == other.answers.prompt_number(other.choice)
    }

    /// The part of the prompt that no step has carried yet.
    pub(super) fn unread(&self) -> &[LlamaToken] {
        &self.answers.prompt(self.choice)[self.read + self.reading..]
    }

    /// The part of the prompt that the current step carries.
    pub(super) fn piece_to_read(&self) -> &[LlamaToken] {
        &self.answers.prompt(self.choice)[self.read..self.read + self.reading]
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
        self.answers.generation.max_tokens - self.generated
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
        self.answers.note_read(self.choice, self.read);
        read
    }

    /// Its cache is a copy of one that holds the whole prompt.
    pub(super) fn note_copied(&mut self) {
        self.read = self.answers.prompt(self.choice).len();
    }

    /// Picks the next token from the model's logits; gives the reason if it is the last one, else reports it.
    pub(super) fn step(
        &mut self,
        model: &Model,
        logits: &[f32],
        scratch: &mut Scratch,
        counters: &Counters,
    ) -> Option<FinishReason> {
        let mask = match self.guide.as_mut().map(Guide::mask).transpose() {
            Ok(mask) => mask,
            Err(why) => return Some(FinishReason::Failed(why)),
        };
        let Some(token) = self.sampler.pick(logits, mask.as_ref(), scratch) else {
            return Some(FinishReason::Failed("the model gave no usable probabilities"));
        };
        self.generated += 1;
        self.answers.note_generated();
        Counters::add(&counters.generation_tokens, 1);
        self.last = Some(token);
        let is_end = model.ends_answer(token);
        let generation = &self.answers.generation;
        if (is_end && !generation.ignore_eos) || generation.stop_tokens.contains(&token) {
            return Some(FinishReason::Stop);
        }
        let likelihood = generation
            .top_logprobs
            .and_then(|top| likelihood(logits, token, top, scratch));
        let is_complete = match self.guide.as_mut().map(|guide| guide.take(token)).transpose() {
            Ok(is_complete) => is_complete.unwrap_or(false),
            Err(why) => return Some(FinishReason::Failed(why)),
        };
        self.accept(model, token, likelihood, is_complete)
    }

    /// Takes the text of a token; `is_complete`: nothing can follow it.
    fn accept(
        &mut self,
        model: &Model,
        token: LlamaToken,
        likelihood: Option<Likelihood>,
        is_complete: bool,
    ) -> Option<FinishReason> {
        let generation = &self.answers.generation;
        self.piece.clear();
        // An end that is ignored is no text, unless special tokens are wanted.
        if generation.special_tokens || !model.ends_answer(token) {
            model.append_piece(token, generation.special_tokens, &mut self.piece);
        }
        let mut text = String::new();
        let stopped = self.text.push(&self.piece, &mut text);
        let reason = if stopped || is_complete {
            Some(FinishReason::Stop)
        } else {
            (self.generated >= generation.max_tokens).then_some(FinishReason::Length)
        };
        if reason.is_some() {
            self.rest = text;
            self.rest_likelihood = likelihood;
        } else if !text.is_empty() || likelihood.is_some() || generation.report_each_token {
            self.answers.report(self.choice, text, likelihood);
        }
        reason
    }

    /// Ends the answer. Its place must be cleared before.
    pub(super) fn end(mut self, reason: FinishReason, counters: &Counters) {
        let mut text = std::mem::take(&mut self.rest);
        self.text.finish(&mut text);
        let likelihood = self.rest_likelihood.take();
        self.answers.end(self.choice, text, likelihood, reason, counters);
    }
}
