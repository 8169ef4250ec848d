//! The rows of one model that go by one sender, and how its server is doing.

use std::sync::Arc;
use std::time::Duration;

use llm_engine_retry::{Backoff, Jitter, Waits};
use tokio::time::Instant;

use crate::{Row, Usage};

/// A row that has been begun and has not ended.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) row: Arc<Row>,
    pub(crate) sender: u32,
    pub(crate) round: u32,
    /// Attempts that count.
    pub(crate) attempts: u32,
    /// All of them.
    pub(crate) sent: u32,
    /// How many answers there had been when it was begun, or failed last.
    pub(crate) answers_seen: u64,
    /// How often it was sent and the server may have done its work, without that the answer arrived.
    pub(crate) unknown: u32,
    /// What is reserved for it.
    pub(crate) reserved: Usage,
    /// What answers took that would not do.
    pub(crate) spent: Usage,
}

#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) in_flight: usize,
    /// Verdicts of the server, of any kind: it is there.
    pub(crate) answers: u64,
    /// Rows that are to be sent again, and when.
    again: Vec<(Instant, Pending)>,
    outage: Option<Outage>,
}

/// Since when nothing was answered.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// When one row tries whether it is over.
    probe_at: Instant,
    is_probing: bool,
    waits: Waits<fn() -> f64>,
}

/// The first wait, what it grows by, and the longest.
fn backoff() -> Backoff {
    Backoff::exponential(Duration::from_secs(1), 2.0)
        .at_most(Duration::from_secs(30))
        .jitter(Jitter::Equal)
}

/// What to make of a failure that may not come again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// It is this row's: others have been answered since it was begun, or failed before.
    OfRow,
    /// Nothing is answered, for so long now.
    Outage(Duration),
}

impl Lane {
    /// The rows that it holds.
    pub(crate) fn taken(&self) -> usize {
        self.in_flight + self.again.len()
    }

    /// Whether new rows may be begun.
    pub(crate) fn is_open(&self) -> bool {
        self.outage.is_none()
    }

    /// The server has said something: what was held up goes on.
    pub(crate) fn answered(&mut self) {
        self.answers += 1;
        self.outage = None;
    }

    /// A row was not answered. As long as others are, that is the row's own failure; but if the server is down, it is nobody's,
    /// and must not use up anybody's attempts.
    pub(crate) fn diagnose(&mut self, pending: &mut Pending, now: Instant) -> Diagnosis {
        let is_of_row = self.answers > pending.answers_seen;
        pending.answers_seen = self.answers;
        if is_of_row {
            return Diagnosis::OfRow;
        }
        let outage = self.outage.get_or_insert_with(|| {
            let mut waits = backoff().waits(fastrand::f64 as fn() -> f64);
            Outage {
                since: now,
                probe_at: now + waits.next().unwrap_or_default(),
                is_probing: false,
                waits,
            }
        });
        if std::mem::take(&mut outage.is_probing) {
            outage.probe_at = now + outage.waits.next().unwrap_or_default();
        }
        Diagnosis::Outage(now - outage.since)
    }

    /// A row is to be sent again after the failure of this attempt.
    pub(crate) fn retry(&mut self, pending: Pending, now: Instant) {
        let mut waits = backoff().waits(fastrand::f64 as fn() -> f64);
        let attempt = usize::try_from(pending.attempts.saturating_sub(1)).unwrap_or_default();
        let wait = waits.nth(attempt.min(16)).unwrap_or_default();
        self.again.push((now + wait, pending));
    }

    /// A row is to be sent again as soon as there is somebody who answers.
    pub(crate) fn retry_at_once(&mut self, pending: Pending, now: Instant) {
        self.again.push((now, pending));
    }

    /// The next row that is to be sent again now. In an outage one tries for all, each time another.
    pub(crate) fn next_again(&mut self, now: Instant) -> Option<Pending> {
        let index = match &mut self.outage {
            None => self.again.iter().position(|(at, _)| *at <= now)?,
            Some(outage) => {
                if self.in_flight > 0 || self.again.is_empty() || now < outage.probe_at {
                    return None;
                }
                outage.is_probing = true;
                0
            }
        };
        Some(self.again.remove(index).1)
    }

    /// When that will be, if nothing happens before.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        match &self.outage {
            None => self.again.iter().map(|(at, _)| *at).min(),
            Some(outage) => (self.in_flight == 0 && !self.again.is_empty()).then_some(outage.probe_at),
        }
    }
}
