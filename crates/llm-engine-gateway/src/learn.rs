use std::sync::{Mutex, PoisonError};

/// How long a model's answers are, learned from the latest of them.
#[derive(Debug)]
pub(crate) struct AnswerLengths {
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    lengths: Vec<u64>,
    /// Where the next one goes.
    next: usize,
}

const REMEMBERED: usize = 256;
/// Fewer say nothing of the one in twenty that is longest.
const FEWEST: usize = 40;

impl AnswerLengths {
    pub(crate) fn new() -> Self {
        let latest = Latest {
            lengths: Vec::new(),
            next: 0,
        };
        Self {
            latest: Mutex::new(latest),
        }
    }

    /// An answer of so many tokens has ended by itself; or, if it was cut off, would have had at least as many: then it
    /// counts as the longest that there can be, or what is learned would only ever get shorter.
    pub(crate) fn observe(&self, tokens: u64, was_cut_off: bool) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = if was_cut_off { u64::MAX } else { tokens };
        if latest.lengths.len() < REMEMBERED {
            latest.lengths.push(length);
        } else {
            let next = latest.next;
            latest.lengths[next] = length;
        }
        latest.next = (latest.next + 1) % REMEMBERED;
    }

    /// What 95 % of the answers stay within, at most `most`; `most` while too little is known. Rounded up to one of eight steps
    /// between powers of two: a request that comes again for its booked time must not cost more than before.
    pub(crate) fn usual(&self, most: u64) -> u64 {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.lengths.len() < FEWEST {
            return most;
        }
        let mut lengths = latest.lengths.clone();
        let rank = (lengths.len() * 95).div_ceil(100) - 1;
        let (_, length, _) = lengths.select_nth_unstable(rank);
        let step = (length.checked_next_power_of_two().unwrap_or(u64::MAX) / 16).max(1);
        length
            .checked_next_multiple_of(step)
            .unwrap_or(most)
            .clamp(1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_is_kept_until_enough_is_known_and_then_95_percent_fit() {
        let lengths = AnswerLengths::new();
        for tokens in 1..FEWEST as u64 {
            lengths.observe(tokens, false);
            assert_eq!(lengths.usual(512), 512);
        }
        for tokens in FEWEST as u64..=100 {
            lengths.observe(tokens, false);
        }
        assert_eq!(lengths.usual(512), 96);
        assert_eq!(lengths.usual(50), 50);
    }

    #[test]
    fn answers_that_are_cut_off_raise_it_again() {
        let lengths = AnswerLengths::new();
        for _ in 0..REMEMBERED {
            lengths.observe(10, false);
        }
        assert_eq!(lengths.usual(512), 10);
        for _ in 0..REMEMBERED / 10 {
            lengths.observe(10, true);
        }
        assert_eq!(lengths.usual(512), 512);
    }
}
