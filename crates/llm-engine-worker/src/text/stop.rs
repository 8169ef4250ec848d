/// Finds the first stop sequence in a text that arrives in pieces.
///
/// "First" is the one that is complete first, and of those that end at the same place the longest: this is what a
/// reader of single characters would find, so that the cut into pieces makes no difference.
#[derive(Debug)]
pub(super) struct StopMatcher {
    sequences: Vec<String>,
    include: bool,
    /// Text that may be the beginning of a stop sequence.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// No sequence may be empty: it would be found everywhere.
    pub(super) fn new(sequences: Vec<String>, include: bool) -> Self {
        debug_assert!(sequences.iter().all(|sequence| !sequence.is_empty()));
        Self {
            sequences,
            include,
            held: String::new(),
            stopped: false,
        }
    }

    /// Appends to `released` what can't be part of a stop sequence; true once a sequence is complete.
    pub(super) fn push(&mut self, text: &str, released: &mut String) -> bool {
        if self.stopped {
            return true;
        }
        if self.sequences.is_empty() {
            released.push_str(text);
            return false;
        }
        self.held.push_str(text);
        if let Some((start, end)) = self.first_match() {
            let end = if self.include { end } else { start };
            released.push_str(&self.held[..end]);
            self.held.clear();
            self.stopped = true;
            return true;
        }
        let certain = self.certain();
        released.push_str(&self.held[..certain]);
        self.held.drain(..certain);
        false
    }

    /// Appends what was held back: nothing follows that could complete a sequence.
    pub(super) fn finish(&mut self, released: &mut String) {
        released.push_str(&self.held);
        self.held.clear();
    }

    /// Start and end of the sequence that is complete first.
    fn first_match(&self) -> Option<(usize, usize)> {
        self.sequences
            .iter()
            .filter_map(|sequence| {
                let start = self.held.find(sequence.as_str())?;
                Some((start, start + sequence.len()))
            })
            .min_by_key(|&(start, end)| (end, start))
    }

    /// How much of the held text, from its beginning, can't be part of a sequence.
    fn certain(&self) -> usize {
        let longest = self.sequences.iter().map(String::len).max().unwrap_or_default();
        let earliest = self.held.len().saturating_sub(longest);
        let open = |&start: &usize| {
            self.held.is_char_boundary(start)
                && self
                    .sequences
                    .iter()
                    .any(|sequence| sequence.starts_with(&self.held[start..]))
        };
        (earliest..self.held.len()).find(open).unwrap_or(self.held.len())
    }
}
