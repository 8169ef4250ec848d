use std::cell::{Cell, RefCell};

use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Usage;
use tokio::sync::mpsc::UnboundedSender;

use super::event::{Event, FinishReason, Likelihood, Submission};
use crate::counters::Counters;
use crate::generation::Generation;
use crate::registry::Registration;

/// A request, shared by the sequences that generate its answers. It is settled when the last of them has ended.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) generation: Generation,
    events: UnboundedSender<Event>,
    registration: RefCell<Registration>,
    /// How much of each prompt was read for the first time: what other answers to it read again is not the caller's.
    read: RefCell<Vec<usize>>,
    generated: Cell<usize>,
    unfinished: Cell<usize>,
}

impl Answers {
    pub(super) fn new(submission: Submission) -> Self {
        let Submission {
            generation,
            events,
            registration,
        } = submission;
        Self {
            events,
            registration: RefCell::new(registration),
            read: RefCell::new(vec![0; generation.prompts.len()]),
            generated: Cell::new(0),
            unfinished: Cell::new(generation.choices()),
            generation,
        }
    }

    /// Whether somebody cancelled it, or nobody listens.
    pub(super) fn is_cancelled(&self) -> bool {
        self.registration.borrow().is_cancelled() || self.events.is_closed()
    }

    /// The prompt of one of the answers.
    pub(super) fn prompt(&self, choice: usize) -> &[LlamaToken] {
        &self.generation.prompts[self.prompt_number(choice)]
    }

    /// Which prompt an answer is to.
    pub(super) fn prompt_number(&self, choice: usize) -> usize {
        choice / self.generation.per_prompt
    }

    /// An answer has read that much of its prompt.
    pub(super) fn note_read(&self, choice: usize, tokens: usize) {
        let read = &mut self.read.borrow_mut()[self.prompt_number(choice)];
        *read = tokens.max(*read);
    }

    pub(super) fn note_generated(&self) {
        self.generated.set(self.generated.get() + 1);
    }

    /// Reports what was generated for an answer that goes on.
    pub(super) fn report(&self, choice: usize, text: String, likelihood: Option<Likelihood>) {
        // Nobody listening is seen as a cancel before the next step.
        let _ = self.events.send(Event {
            choice,
            text,
            likelihood,
            reason: None,
            usage: self.usage(),
            is_last: false,
        });
    }

    /// Ends one answer, and with the last one the request. Its place must be cleared before: who learns that a request
    /// has ended may rely on the model not working on it any more.
    pub(super) fn end(
        &self,
        choice: usize,
        text: String,
        likelihood: Option<Likelihood>,
        reason: FinishReason,
        counters: &Counters,
    ) {
        self.unfinished.set(self.unfinished.get() - 1);
        let is_last = self.unfinished.get() == 0;
        let usage = self.usage();
        Counters::subtract(&counters.unfinished, 1);
        if is_last {
            if reason == FinishReason::Cancelled {
                Counters::add(&counters.cancelled, 1);
            }
            self.registration.borrow_mut().settle(usage);
        }
        // Nobody may be listening any more; the usage is kept in the registry.
        let _ = self.events.send(Event {
            choice,
            text,
            likelihood,
            reason: Some(reason),
            usage,
            is_last,
        });
    }

    /// Exactly what the model has done for it.
    fn usage(&self) -> Usage {
        let count = |tokens: usize| u64::try_from(tokens).unwrap_or(u64::MAX);
        let read = self.read.borrow().iter().sum();
        Usage::new(count(read), count(self.generated.get()))
    }
}
