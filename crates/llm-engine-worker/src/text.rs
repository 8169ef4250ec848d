//! From the bytes of tokens to the text of an answer.

mod stop;
mod utf8;

use stop::StopMatcher;
use utf8::Utf8Joiner;

/// The text of one answer, as it grows. Text is released once it is whole and can no longer become part of a stop
/// sequence; how the bytes were cut into tokens makes no difference to what is released in the end.
#[derive(Debug)]
pub(crate) struct AnswerText {
    joiner: Utf8Joiner,
    stops: StopMatcher,
}

impl AnswerText {
    /// `include_stop`: whether the stop sequence that ends the answer belongs to it.
    pub(crate) fn new(stop_sequences: Vec<String>, include_stop: bool) -> Self {
        Self {
            joiner: Utf8Joiner::default(),
            stops: StopMatcher::new(stop_sequences, include_stop),
        }
    }

    /// Takes the bytes of a token, appends to `released` what is certain, and says whether a stop sequence is complete.
    pub(crate) fn push(&mut self, bytes: &[u8], released: &mut String) -> bool {
        let text = self.joiner.push(bytes);
        self.stops.push(&text, released)
    }

    /// Appends what was held back: no more tokens come.
    pub(crate) fn finish(&mut self, released: &mut String) {
        let rest = self.joiner.finish();
        if !self.stops.push(rest, released) {
            self.stops.finish(released);
        }
    }
}

#[cfg(test)]
mod tests;
