use std::time::Duration;

use crate::journal::{Ended, Journal};
use crate::{Settings, Usage};

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All rows of the input.
    pub rows: u64,
    /// Rows with an answer or an error, those of earlier sessions included.
    pub ended: u64,
    /// Those of them with an error.
    pub failed: u64,
    /// Rows that have ended in this session.
    pub ended_now: u64,
    /// Rows that are on their way.
    pub in_flight: usize,
    /// What all answers took.
    pub usage: Usage,
    /// Rows of an earlier session of which nobody knew what had become of them, and that were sent again.
    pub resent: u64,
    /// Rows that may have been generated more than once: because they came again, and the server did not say that it had stored
    /// what it did before, or they had come several times before it said so. Never fewer than were; only the server knows how many.
    pub doubles: u64,
    /// Attempts of this session that failed, refusals not counted.
    pub failed_attempts: u64,
    /// If nothing is answered: for how long, and what happens instead.
    pub outage: Option<(Duration, String)>,
    /// Only so many rows are asked for, evenly spread.
    sample: Option<u64>,
}

impl Tally {
    pub(crate) fn of(journal: &Journal, settings: &Settings) -> Self {
        let known = journal.known();
        Self {
            rows: journal.header().survey.rows,
            ended: known.ended_rows(),
            failed: known.failed_rows(),
            usage: known.usage(),
            doubles: known.doubles(),
            sample: settings.sample,
            ..Self::default()
        }
    }

    pub(crate) fn is_asked_for(&self, row: u64) -> bool {
        self.sample.is_none_or(|sample| {
            let (row, sample, rows) = (u128::from(row), u128::from(sample), u128::from(self.rows));
            (row * sample) % rows < sample
        })
    }

    pub(crate) fn ends(&mut self, ended: &Ended) {
        self.ended += 1;
        self.ended_now += 1;
        self.failed += u64::from(!ended.is_answered);
        self.doubles += u64::from(ended.may_be_double);
    }
}

impl Journal {
    /// How far the run has come.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally::of(self, &Settings::default())
    }
}
