//! Who holds which sequence of the cache.

use super::Engine;
use super::batch::Output;
use super::event::FinishReason;
use super::sequence::Sequence;
use crate::counters::Counters;

/// Moving a request to another place copies all the room of a place, which takes about as long as a decode step.
/// A request with fewer tokens to go than this stays where it is.
const WORTH_MOVING_TOKENS: usize = 16;

impl Engine<'_> {
    /// Gives free places to those who have waited longest.
    pub(super) fn fill_places(&mut self) {
        for place in self.places.iter_mut().filter(|place| place.is_none()) {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            *place = Some(Sequence::begin(waiting, self.admitted));
            self.admitted += 1;
            Counters::add(&self.counters.running, 1);
        }
    }

    /// Moves requests together. llama.cpp computes a step in one go only for sequences whose numbers follow each
    /// other; a gap costs another pass over all weights in every step.
    pub(super) fn close_gaps(&mut self) {
        while let Some((from, to)) = gap(&self.places) {
            if self.places[from]
                .as_ref()
                .is_none_or(|sequence| sequence.remaining() < WORTH_MOVING_TOKENS)
            {
                return;
            }
            if !self.move_cache(from, to) {
                return;
            }
            self.places.swap(from, to);
        }
    }

    /// Ends the request of a place: first the cache, then the books, then its reader.
    pub(super) fn end(&mut self, place: usize, reason: FinishReason) {
        if let Some(sequence) = self.places[place].take() {
            self.clear_cache(place);
            Counters::subtract(&self.counters.running, 1);
            self.report_cache();
            sequence.end(reason, &self.counters);
        }
    }

    /// Publishes how many tokens the cache holds.
    pub(super) fn report_cache(&self) {
        let cached: usize = self.places.iter().flatten().map(Sequence::cached).sum();
        let cached = u64::try_from(cached).unwrap_or(u64::MAX);
        self.counters
            .cached_tokens
            .store(cached, std::sync::atomic::Ordering::Relaxed);
    }

    /// Copies a prompt that was just read to the other answers to it that hold a place; gives their outputs, which are
    /// the same one. Those that get a place later read it themselves.
    pub(super) fn copy_prompt(&mut self, output: Output) -> Vec<Output> {
        let Some(reader) = &self.places[output.place] else {
            return Vec::new();
        };
        // Past its first token its cache holds more than the prompt.
        if reader.last_token().is_some() {
            return Vec::new();
        }
        let followers: Vec<usize> = (0..self.places.len())
            .filter(|&place| place != output.place)
            .filter(|&place| {
                let follower = self.places[place].as_ref();
                follower.is_some_and(|follower| follower.shares_prompt_with(reader) && follower.cached() == 0)
            })
            .collect();
        let mut copies = Vec::with_capacity(followers.len());
        for place in followers {
            if !self.copy_cache(output.place, place) {
                continue;
            }
            if let Some(follower) = &mut self.places[place] {
                follower.note_copied();
            }
            copies.push(Output { place, ..output });
        }
        copies
    }

    fn clear_cache(&mut self, place: usize) {
        // The places are numbered below `parallel`, which is at most 256.
        let place = u32::try_from(place).ok();
        if place.is_none() || self.context.clear_kv_cache_seq(place, None, None).is_err() {
            tracing::error!("a sequence could not be cleared");
        }
    }

    fn move_cache(&mut self, from: usize, to: usize) -> bool {
        let is_copied = self.copy_cache(from, to);
        if is_copied {
            self.clear_cache(from);
        }
        is_copied
    }

    fn copy_cache(&mut self, from: usize, to: usize) -> bool {
        let (Ok(source), Ok(target)) = (i32::try_from(from), i32::try_from(to)) else {
            return false;
        };
        self.context.copy_kv_cache_seq(source, target, None, None).is_ok()
    }
}

/// The last place that is held, and a free one between the first and it.
fn gap<T>(places: &[Option<T>]) -> Option<(usize, usize)> {
    let first = places.iter().position(Option::is_some)?;
    let last = places.iter().rposition(Option::is_some)?;
    let free = (first..last).find(|&place| places[place].is_none())?;
    Some((last, free))
}

#[cfg(test)]
mod tests {
    use super::gap;

    #[test]
    fn a_gap_lies_between_places_that_are_held() {
        let held = |pattern: &str| -> Vec<Option<()>> {
            pattern
                .chars()
                .map(|place| (place == 'x').then_some(()))
                .collect()
        };
        assert_eq!(gap(&held("....")), None);
        assert_eq!(gap(&held("xx..")), None);
        assert_eq!(gap(&held("..xx")), None);
        assert_eq!(gap(&held("x.x.")), Some((2, 1)));
        assert_eq!(gap(&held("x..x")), Some((3, 1)));
        assert_eq!(gap(&held(".x.x")), Some((3, 2)));
    }
}
