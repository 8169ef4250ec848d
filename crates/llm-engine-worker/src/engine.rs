//! One thread that owns the model's context and decodes for all running requests at once.
//!
//! Each request holds one *place*: a sequence of llama.cpp's cache with a fixed number of tokens of its own, so that no
//! request can take another's room. A decode step carries one token of every generating request and a bounded piece of
//! the prompts that are still being read. Requests without a place wait, first come, first served.
//!
//! # What llama.cpp asserts, and why it doesn't happen here
//!
//! An assertion aborts the process, so each one that a request could reach is made unreachable before:
//!
//! | assertion or abort | guard |
//! |---|---|
//! | `decode`: no tokens in the batch (`n_tok > 0`) | a step without tokens is not decoded; a prompt has at least one |
//! | `decode`: more tokens than `n_batch` | the batch is allocated for the largest step, which `n_batch` is checked against |
//! | `decode`: non-causal attention or an encoder, with `n_ubatch` below the batch | `n_ubatch` is `n_batch` |
//! | `decode`: token or sequence ids out of range (an error, not an abort) | ids come from the tokenizer and are checked; sequences are the places |
//! | `decode`: no room in the cache (an error) | prompt and maximum are checked against the room of one place |
//! | context: more sequences than `LLAMA_MAX_SEQ` (an error) or than `n_batch` | `parallel` is checked at the start; `n_batch` is larger |
//! | `get_logits_ith`: no such output (a null pointer, on which the binding panics) | read only for the outputs that the step asked for |
//! | samplers: nothing selected, no last step, a bad window; grammars; logit bias with foreign ids | llama.cpp's samplers and grammars are not used: ours are in Rust, and ids are checked |
//! | tokenizer: no vocabulary, or a begin or end token that is missing | checked when the model is loaded |
//! | tokenizer: lengths above 31 bits | a text that can't fit into the context is refused by its length |
//! | chat template: none, or one that llama.cpp doesn't know | an error code, answered with 400; C strings: NUL is refused |
//! | `seq_rm`, `seq_cp`: sequence out of range, part of a sequence | whole sequences of existing places only |
//! | `n_outputs_max`, `embeddings_ith`: outputs that were not asked for | see [`crate::embedding`], whose context is another one |

mod answers;
mod batch;
mod event;
mod place;
mod sequence;
mod start;

pub(crate) use event::{Event, FinishReason, Likelihood, Submission};
pub(crate) use start::{EngineThread, Intake, backend, start};

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;

use crate::counters::Counters;
use crate::model::Model;
use crate::sampler::Scratch;
use answers::Answers;
use sequence::{Sequence, Waiting};

/// Why decoding ended with requests unanswered.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the batch is full")]
    Batch(#[from] llama_cpp_2::llama_batch::BatchAddError),
    #[error("the model could not decode")]
    Decode(#[from] llama_cpp_2::DecodeError),
}

/// The state of the engine thread.
struct Engine<'model> {
    model: &'model Model,
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    /// Which answer holds which sequence of the cache.
    places: Vec<Option<Sequence>>,
    waiting: VecDeque<Waiting>,
    scratch: Scratch,
    counters: Arc<Counters>,
    /// How many answers have got a place so far: their order.
    admitted: u64,
}

impl Engine<'_> {
    /// Works until no more requests can come and none is left. Sleeps while there is nothing to do.
    fn work(&mut self, submissions: &Receiver<Submission>) {
        while self.take_submissions(submissions) {
            self.end_cancelled();
            self.fill_places();
            self.close_gaps();
            self.step();
        }
    }

    /// Takes what has come; blocks if there is nothing else to do. False when the engine can end.
    fn take_submissions(&mut self, submissions: &Receiver<Submission>) -> bool {
        let idle = self.waiting.is_empty() && self.places.iter().all(Option::is_none);
        if idle {
            match submissions.recv() {
                Ok(submission) => self.enter(submission),
                Err(_) => return false,
            }
        }
        loop {
            match submissions.try_recv() {
                Ok(submission) => self.enter(submission),
                // Whoever still waits for an answer gets it.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Lines up the answers of a request.
    fn enter(&mut self, submission: Submission) {
        let answers = Rc::new(Answers::new(submission));
        for choice in 0..answers.generation.choices() {
            self.waiting.push_back(Waiting {
                answers: Rc::clone(&answers),
                choice,
            });
        }
    }

    /// Ends what nobody wants any more, waiting or running.
    fn end_cancelled(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place].as_ref().is_some_and(Sequence::is_cancelled) {
                self.end(place, FinishReason::Cancelled);
            }
        }
        self.waiting.retain(|Waiting { answers, choice }| {
            let is_cancelled = answers.is_cancelled();
            if is_cancelled {
                answers.end(
                    *choice,
                    String::new(),
                    None,
                    FinishReason::Cancelled,
                    &self.counters,
                );
            }
            !is_cancelled
        });
    }

    /// One decode step: reads a piece of the prompts and generates one token of each request that is past its prompt.
    fn step(&mut self) {
        let outputs = match self.fill_batch() {
            Ok(outputs) => outputs,
            Err(error) => return self.fail(&error),
        };
        if self.batch.n_tokens() == 0 {
            return;
        }
        if let Err(error) = self.context.decode(&mut self.batch) {
            return self.fail(&error.into());
        }
        Counters::add(&self.counters.decode_steps, 1);
        self.note_read();
        // Before the first token of any of them is drawn: until then their caches are the same.
        let copies: Vec<_> = outputs
            .iter()
            .flat_map(|&output| self.copy_prompt(output))
            .collect();
        for output in outputs.into_iter().chain(copies) {
            self.take_token(output);
        }
        self.report_cache();
    }

    /// Picks the next token of a request from its logits.
    fn take_token(&mut self, output: batch::Output) {
        let Some(sequence) = &mut self.places[output.place] else {
            return;
        };
        // Cancelled while the step ran: the token is not drawn, so it isn't counted either.
        if sequence.is_cancelled() {
            return self.end(output.place, FinishReason::Cancelled);
        }
        let logits = self.context.get_logits_ith(output.index);
        if let Some(reason) = sequence.step(self.model, logits, &mut self.scratch, &self.counters) {
            self.end(output.place, reason);
        }
    }

    /// Ends every request that the step carried: which of them made it fail can't be told.
    fn fail(&mut self, error: &StepError) {
        tracing::error!(error = error as &dyn std::error::Error, "decode step failed");
        for place in 0..self.places.len() {
            if self.places[place].as_ref().is_some_and(Sequence::is_in_step) {
                self.end(place, FinishReason::Failed("the model could not decode"));
            }
        }
    }
}
