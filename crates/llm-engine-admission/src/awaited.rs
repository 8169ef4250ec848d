use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use llm_engine_limit::Time;

/// The requests whose first token has not come: those of which it is late, and those of which it is not.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// Their tokens, by when they will be late.
    on_time: BTreeMap<(Time, u64), u64>,
    late: HashMap<u64, u64, FixedState>,
    late_tokens: u64,
    on_time_tokens: u64,
}

impl Awaited {
    /// One is sent whose first token is late from `due` on.
    pub(crate) fn add(&mut self, key: u64, due: Time, tokens: u64) {
        self.on_time.insert((due, key), tokens);
        self.on_time_tokens += tokens;
    }

    /// Its first token has come, or nobody waits for it any more.
    pub(crate) fn remove(&mut self, key: u64, due: Time) {
        if let Some(tokens) = self.on_time.remove(&(due, key)) {
            self.on_time_tokens -= tokens;
        } else if let Some(tokens) = self.late.remove(&key) {
            self.late_tokens -= tokens;
        }
    }

    /// Finds out which are late by now.
    pub(crate) fn pass_time(&mut self, now: Time) {
        while let Some(first) = self.on_time.first_entry()
            && first.key().0 <= now
        {
            let ((_, key), tokens) = first.remove_entry();
            self.late.insert(key, tokens);
            self.late_tokens += tokens;
            self.on_time_tokens -= tokens;
        }
    }

    /// How many are late.
    pub(crate) fn late(&self) -> usize {
        self.late.len()
    }

    /// The tokens of all.
    pub(crate) fn tokens(&self) -> u64 {
        self.on_time_tokens + self.late_tokens
    }

    /// The tokens of these.
    pub(crate) fn late_tokens(&self) -> u64 {
        self.late_tokens
    }
}
