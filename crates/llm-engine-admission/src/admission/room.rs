//! The room among those that run, and what time brings about.

use std::time::Duration;

use llm_engine_limit::Time;

use super::{Admission, Running};
use crate::law::Look;
use crate::{Class, Limit, Place};

impl Admission {
    /// Whether a request of this length may run now.
    pub(super) fn has_room(&self, caller: u32, class: Class, input_tokens: u64) -> bool {
        if class == Class::Batch && self.of_batches >= left_to_batches(self.law.requests()) {
            return false;
        }
        let reserve = if self.queue.is_behind(caller) {
            0
        } else {
            self.reserve()
        };
        self.law
            .has_room(self.running.len(), self.tokens, input_tokens, reserve)
    }

    /// A request of this caller arrives: while one takes less than its share and others always wait, room is kept for it until it has
    /// caught up.
    pub(super) fn keep_room(&mut self, now: Time, caller: u32) {
        let is_kept = now < self.reserved_until;
        let is_modest = self.queue.is_modest(caller) || is_kept && self.queue.is_behind(caller);
        if is_modest && self.crowd.value() >= CROWDED {
            self.reserved_until = now + RESERVED;
        }
    }

    /// The tokens that are kept free for callers that are behind, while there are any.
    pub(super) fn reserve(&self) -> u64 {
        if self.latest >= self.reserved_until || matches!(self.setup.limit, Limit::Fixed(_)) {
            return 0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of an amount"
        )]
        let reserve = (self.law.tokens() * RESERVE) as u64;
        reserve
    }

    pub(super) fn take_place(&mut self, caller: u32, class: Class, charge: u64, input_tokens: u64) -> Place {
        let key = self.next_key;
        self.next_key += 1;
        let input_tokens = input_tokens.min(MOST_TOKENS);
        self.of_batches += usize::from(class == Class::Batch);
        self.charged += charge;
        self.tokens += input_tokens;
        let running = Running {
            caller,
            class,
            charge,
            input_tokens,
            written: 0,
            is_read: false,
            sent: None,
        };
        self.running.insert(key, running);
        Place { key }
    }

    /// Whether the models have about as much to do as they may.
    fn is_busy(&self) -> bool {
        match self.setup.limit {
            Limit::Fixed(limit) => self.running.len() * 5 >= limit.get() as usize * 4,
            Limit::Adaptive { .. } => self.tokens as f64 >= self.law.tokens() * BUSY,
        }
    }

    pub(super) fn pass_time(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        let now = self.latest;
        self.promises.pass_time(now, self.setup.wait);
        if now < self.law.next() {
            return now;
        }
        self.awaited.pass_time(now);
        let requests = self.running.len();
        self.drain.look(now, self.is_busy());
        self.queue.set_credit(self.drain.work_in(CREDIT));
        self.peak *= PEAK_FADES;
        self.crowd
            .add(f64::from(u8::from(!self.queue.is_empty() || self.turned_away)));
        self.turned_away = false;
        let reported = self.reported.values();
        let reported = reported.filter(|(told, _)| now.since(*told) <= BELIEVED);
        let reported: usize = reported.map(|(_, waiting)| waiting).sum();
        let look = Look {
            requests,
            tokens: self.tokens,
            late: self.awaited.late_tokens().max(self.law.tokens_of(reported)),
            awaited: self.awaited.tokens(),
            reserve: self.reserve(),
            due: self.due.value(),
            // Whoever comes finds a long one more often than a short one.
            reading: self.reading_squared.value() / self.reading.value().max(1e-6),
        };
        self.law.look(now, look);
        now
    }
}

/// Three quarters, but at least one.
fn left_to_batches(places: usize) -> usize {
    (places - places.div_ceil(4)).max(1)
}

/// Above any request, and far below what sums overflow at.
pub(super) const MOST_TOKENS: u64 = 1 << 40;
/// By how much of the models' time a caller may be behind others that wait and still catch up: several times what chance makes of the
/// needs of a caller that takes less than its share.
const CREDIT: Duration = Duration::from_secs(15);
/// For so long after a request of a modest caller this part of the limit is kept free for the next ones: what one that takes
/// eight tenths of its share needs beyond its mean, in all but one of a hundred moments.
const RESERVED: Duration = Duration::from_secs(10);
const RESERVE: f64 = 0.22;
/// Only where others wait or are turned away in this part of the time, or room would be kept free for what comes anyway.
const CROWDED: f64 = 0.9;
/// This part of the limit is in flight.
const BUSY: f64 = 0.8;
/// Below this part of what was in flight lately it is quiet.
pub(super) const QUIET: f64 = 0.6;
/// For so long it counts how many requests a deployment has said that wait in it.
const BELIEVED: Duration = Duration::from_secs(2);
/// In half a second; by half within three minutes.
const PEAK_FADES: f64 = 0.998;
