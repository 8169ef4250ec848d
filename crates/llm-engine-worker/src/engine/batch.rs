//! What one decode step carries.

use super::sequence::Sequence;
use super::{Engine, StepError};
use crate::counters::Counters;

/// The most prompt tokens in a step while nobody generates. More at a time is hardly faster, and a cancel waits longer.
pub(super) const IDLE_PROMPT_TOKENS: usize = 64;

/// The most prompt tokens in a step while others generate. Each of them waits for these as well: on one core a prompt
/// token of a small model takes about as long as a generated one.
const BUSY_PROMPT_TOKENS: usize = 16;

/// Where the logits of a request are found after the step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) place: usize,
    /// The position in the batch.
    pub(super) index: i32,
}

impl Engine<'_> {
    /// Fills the batch with the next token of each generating request and with pieces of the prompts that are still to
    /// be read; gives the outputs to sample from.
    pub(super) fn fill_batch(&mut self) -> Result<Vec<Output>, StepError> {
        self.batch.clear();
        self.plan_prompts();
        let mut outputs = Vec::with_capacity(self.places.len());
        // In the order of the places: llama.cpp computes rising sequence numbers in one go.
        for (place, sequence) in (0_i32..)
            .zip(&self.places)
            .filter_map(|(place, held)| Some((place, held.as_ref()?)))
        {
            let position = to_position(sequence.cached());
            if let Some(token) = sequence.last_token() {
                outputs.push(Output {
                    place: to_index(place),
                    index: self.batch.n_tokens(),
                });
                self.batch.add(token, position, &[place], true)?;
                continue;
            }
            let is_last_piece = sequence.unread().is_empty() && !sequence.piece_to_read().is_empty();
            let mut pieces = (position..).zip(sequence.piece_to_read()).peekable();
            while let Some((position, &token)) = pieces.next() {
                let is_output = is_last_piece && pieces.peek().is_none();
                if is_output {
                    outputs.push(Output {
                        place: to_index(place),
                        index: self.batch.n_tokens(),
                    });
                }
                self.batch.add(token, position, &[place], is_output)?;
            }
        }
        Ok(outputs)
    }

    /// After the step: the prompts have been read that far.
    pub(super) fn note_read(&mut self) {
        let read: usize = self.places.iter_mut().flatten().map(Sequence::note_read).sum();
        Counters::add(
            &self.counters.prompt_tokens,
            u64::try_from(read).unwrap_or(u64::MAX),
        );
    }

    /// Divides the prompt tokens of this step: whoever came first reads first. Of the answers to one prompt only the first
    /// reads it; the others get a copy.
    fn plan_prompts(&mut self) {
        let generating = self
            .places
            .iter()
            .flatten()
            .any(|sequence| sequence.last_token().is_some());
        let mut left = if generating {
            BUSY_PROMPT_TOKENS
        } else {
            IDLE_PROMPT_TOKENS
        };
        let mut reading: Vec<&mut Sequence> = self
            .places
            .iter_mut()
            .flatten()
            .filter(|sequence| !sequence.unread().is_empty())
            .collect();
        reading.sort_by_key(|sequence| sequence.order);
        for place in 0..reading.len() {
            let (before, rest) = reading.split_at_mut(place);
            let sequence = &mut rest[0];
            if before.iter().any(|other| other.shares_prompt_with(sequence)) {
                continue;
            }
            let tokens = sequence.unread().len().min(left);
            sequence.plan_to_read(tokens);
            left -= tokens;
        }
    }
}

/// A context has at most 2³¹ tokens: checked at the start.
fn to_position(tokens: usize) -> i32 {
    i32::try_from(tokens).unwrap_or(i32::MAX)
}

fn to_index(place: i32) -> usize {
    usize::try_from(place).unwrap_or_default()
}
