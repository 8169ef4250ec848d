use std::time::Duration;

use crate::Saturated;

/// Proof of being among the requests that run, to be handed back to [`Admission::end`](crate::Admission::end) exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place is taken until it is handed back"]
pub struct Place {
    pub(crate) key: u64,
}

/// A request in the queue, to be handed back to [`Admission::cancel`](crate::Admission::cancel) if its caller goes before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queued {
    pub(crate) key: u64,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It runs.
    Place(Place),
    /// It waits for a [`Turn`].
    Queued(Queued),
}

/// What becomes of a queued request.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It runs.
    Place(Queued, Place),
    /// It has waited for too long.
    Refused(Queued, Saturated),
}

/// How things stand.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// How many requests of the length that is usual now may be in flight.
    pub limit: usize,
    /// How many are.
    pub in_flight: usize,
    /// Of these, without a first token for longer than it should take.
    pub waiting: usize,
    /// How many are in the queue.
    pub queued: usize,
    /// Work done per second.
    pub per_second: Option<f64>,
}

/// Nobody is told to come back before.
pub(crate) const SOONEST: Duration = Duration::from_millis(500);

/// Work: reading a token, or half of writing one.
pub(crate) fn charge(input_tokens: u64, output_tokens: u64) -> u64 {
    let charge = input_tokens.saturating_add(output_tokens.saturating_mul(2));
    charge.clamp(1, MOST_CHARGE)
}

/// Above any request, and far below what sums overflow at.
const MOST_CHARGE: u64 = 1 << 40;
