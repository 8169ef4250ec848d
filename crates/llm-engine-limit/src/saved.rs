use crate::{Counted, Name, Subject};

/// How one bucket stands, for whoever keeps it over a restart: see [`Limiter::save`](crate::Limiter::save).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The policy.
    pub policy: Name,
    /// Which of its quotas or budgets.
    pub counted: Counted,
    /// For whom: what the policy is counted per, and zeros.
    pub subject: Subject,
    /// How it stands.
    pub level: SavedLevel,
}

/// What has been taken from a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedLevel {
    /// So many units are missing now; they refill. Zero if they do so within a minute: then nothing need be kept.
    Missing {
        /// Whole units, rounded up.
        units: u64,
    },
    /// So many units of the calendar window of this number are spent.
    Spent {
        /// The number of the window.
        window: u32,
        /// The units.
        units: u64,
    },
}
