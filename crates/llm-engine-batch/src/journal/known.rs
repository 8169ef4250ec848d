use std::collections::BTreeMap;

use super::{Begun, Ended, Line};
use crate::Usage;
use crate::bits::Bits;

/// What the lines of a journal say together. Its size is two bits a row, and what is on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    ended: Bits,
    failed: Bits,
    /// Rows that were sent and have not ended.
    open: BTreeMap<u64, Open>,
    usage: Usage,
    doubles: u64,
    reopened: u32,
    is_written: bool,
}

/// A row that was sent and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// As it was sent last.
    pub(crate) begun: Begun,
    /// How often it may have been generated, at most.
    pub(crate) times: u32,
}

/// How many rounds a row can have before the ones that failed are opened again.
const ROUNDS: u32 = 1 << 16;

impl Known {
    pub(super) fn learn(&mut self, line: &Line) {
        match line {
            Line::Header(_) => {}
            Line::Begun(begun) => self.begins(*begun),
            Line::Ended(ended, _) => self.ends(ended),
            Line::Reopened => self.reopen(),
            Line::Written => self.is_written = true,
        }
    }

    fn begins(&mut self, begun: Begun) {
        if self.has_ended(begun.row) {
            return;
        }
        let times = self.open(begun.row).map_or(0, |open| open.times);
        let times = times.saturating_add(1);
        self.open.insert(begun.row, Open { begun, times });
        self.is_written = false;
    }

    fn ends(&mut self, ended: &Ended) {
        if !self.ended.set(ended.row) {
            return;
        }
        if !ended.is_answered {
            self.failed.set(ended.row);
        }
        self.open.remove(&ended.row);
        self.usage.add(&ended.usage);
        self.doubles += u64::from(ended.may_be_double);
        self.is_written = false;
    }

    fn reopen(&mut self) {
        self.reopened += 1;
        self.is_written = false;
        let failed = std::mem::take(&mut self.failed);
        for row in failed.all() {
            self.ended.clear(row);
        }
    }

    pub(crate) fn has_ended(&self, row: u64) -> bool {
        self.ended.has(row)
    }

    /// If it was sent and has not ended: how.
    pub(crate) fn open(&self, row: u64) -> Option<Open> {
        self.open.get(&row).copied()
    }

    /// The round in which a row begins that is not open: a new one for those that failed in earlier ones.
    pub(crate) fn first_round(&self) -> u32 {
        self.reopened.saturating_mul(ROUNDS)
    }

    /// Rows with an answer or an error.
    pub(crate) fn ended_rows(&self) -> u64 {
        self.ended.ones()
    }

    /// Rows with an error.
    pub(crate) fn failed_rows(&self) -> u64 {
        self.failed.ones()
    }

    /// What all answers together took.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Rows that may have been generated more than once: all that were, and others.
    pub(crate) fn doubles(&self) -> u64 {
        self.doubles
    }

    /// Whether the output has everything.
    pub(crate) fn is_written(&self) -> bool {
        self.is_written
    }
}
