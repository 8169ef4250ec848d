use std::collections::BTreeMap;

use crate::Time;
use crate::meter::Meter;

/// Requests for which alone a bucket must refill for longer than times are booked, in the order in which they came.
///
/// A time so far ahead is promised to nobody: hardly anyone comes back for it, and until then all others would have to wait.
/// But without anything such a request would find its bucket taken by small ones each time that it comes. So half of what
/// refills is left for the first of them, until it is all that the request needs: whatever others ask for, it waits at most
/// twice as long as if they asked for nothing. When it leaves, the next one is the first.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// By the ids of the claims, which grow.
    waiting: BTreeMap<u64, Claim>,
    /// Since when the first of them is the first.
    since: Time,
}

#[derive(Debug)]
struct Claim {
    caller: u32,
    /// What it needs, in the order of the row's buckets.
    ticks: Box<[u64]>,
}

/// More can't wait on one row.
const MOST: usize = 16;

impl Claims {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more of the caller may wait: on a row that callers share, each has one at a time.
    pub(crate) fn have_room(&self, caller: u32, is_per_caller: bool) -> bool {
        let waits = |claim: &Claim| claim.caller == caller;
        self.waiting.len() < MOST && (is_per_caller || !self.waiting.values().any(waits))
    }

    pub(crate) fn add(&mut self, now: Time, id: u64, caller: u32, ticks: &[u64]) {
        if self.is_empty() {
            self.since = now;
        }
        let ticks = ticks.into();
        self.waiting.insert(id, Claim { caller, ticks });
    }

    pub(crate) fn remove(&mut self, now: Time, id: u64) {
        let first = self.waiting.first_key_value().map(|(first, _)| *first);
        if self.waiting.remove(&id).is_some() && first == Some(id) {
            self.since = now;
        }
    }

    /// Whether there is one that is not the asking one's own.
    pub(crate) fn has_another(&self, own: Option<u64>) -> bool {
        self.waiting
            .first_key_value()
            .is_some_and(|(id, _)| own != Some(*id))
    }

    /// What of a bucket is left for the first one at this tick, if that is not the asking one itself.
    pub(crate) fn kept(&self, meter: &Meter, tick: u64, own: Option<u64>) -> u64 {
        self.first_but(meter, own)
            .map_or(0, |(since, ticks)| ticks.min(tick.saturating_sub(since) / 2))
    }

    /// The tick from which on a bucket can give beside that what it could give at `turn` without.
    pub(crate) fn turn_beside(&self, meter: &Meter, turn: u64, own: Option<u64>) -> u64 {
        self.first_but(meter, own).map_or(turn, |(since, ticks)| {
            // Every second tick is kept, until all is.
            turn.saturating_add(ticks.min(turn.saturating_sub(since)))
        })
    }

    /// The tick at which all that it needs is left for the asking one, if that is the first.
    pub(crate) fn complete_for(&self, meter: &Meter, own: Option<u64>) -> Option<u64> {
        let (id, claim) = self.waiting.first_key_value()?;
        let since = meter.ticks_at(self.since);
        (own == Some(*id)).then(|| since.saturating_add(claim.ticks[meter.place].saturating_mul(2)))
    }

    /// Since which tick the first one is that, and what it needs, if it is not the asking one.
    fn first_but(&self, meter: &Meter, own: Option<u64>) -> Option<(u64, u64)> {
        let (id, claim) = self.waiting.first_key_value()?;
        let is_another = own != Some(*id) && meter.refills();
        is_another.then(|| (meter.ticks_at(self.since), claim.ticks[meter.place]))
    }
}
