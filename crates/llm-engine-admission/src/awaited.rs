use std::collections::BTreeMap;

use llm_engine_limit::Time;

/// The requests whose first token has not come: those of which it is late, and those of which it is not.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// By when they will be late.
    on_time: BTreeMap<(Time, u64), Sent>,
    /// By when they were sent.
    late: BTreeMap<(Time, u64), u32>,
    /// How many were in flight when each of the late ones was sent, all together.
    levels: u64,
}

/// A request that was sent to a deployment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) at: Time,
    pub(crate) deployment: u32,
    /// When its first token is late.
    pub(crate) due: Time,
    /// How many were in flight then, itself included.
    pub(crate) in_flight: u32,
    /// Whether that was a quiet moment.
    pub(crate) is_quiet: bool,
}

impl Awaited {
    pub(crate) fn add(&mut self, key: u64, sent: Sent) {
        self.on_time.insert((sent.due, key), sent);
    }

    /// Its first token has come, or nobody waits for it any more.
    pub(crate) fn remove(&mut self, key: u64, sent: &Sent) {
        if self.on_time.remove(&(sent.due, key)).is_none()
            && let Some(in_flight) = self.late.remove(&(sent.at, key))
        {
            self.levels -= u64::from(in_flight);
        }
    }

    /// Finds out which are late by now.
    pub(crate) fn pass_time(&mut self, now: Time) {
        while let Some(first) = self.on_time.first_entry()
            && first.key().0 <= now
        {
            let ((_, key), sent) = first.remove_entry();
            self.late.insert((sent.at, key), sent.in_flight);
            self.levels += u64::from(sent.in_flight);
        }
    }

    /// How many are late.
    pub(crate) fn late(&self) -> usize {
        self.late.len()
    }

    /// How many of these were sent after a moment.
    pub(crate) fn late_since(&self, moment: Time) -> usize {
        self.late.range((moment, 0)..).count()
    }

    /// How many were in flight when the late ones were sent, on average. 0 if none is late.
    pub(crate) fn level(&self) -> f64 {
        if self.late.is_empty() {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "an average of counts")]
        let level = self.levels as f64 / self.late.len() as f64;
        level
    }
}
