//! How long a request would wait, and what it is told if that is too long.

use std::time::Duration;

use llm_engine_limit::{Cost, HORIZON, Time};

use super::Admission;
use crate::arrival::{SOONEST, charge};
use crate::promises::Claim;
use crate::queue::Waiting;
use crate::{Class, Reason, Request, Saturated};

impl Admission {
    pub(super) fn longest_wait(&self, is_promised: bool) -> Duration {
        if is_promised {
            self.setup.booked_wait
        } else {
            self.setup.wait
        }
    }

    /// When a request is refused at the latest that is queued now.
    pub(super) fn until(&self, now: Time, request: &Request, is_promised: bool) -> Time {
        let deadline = request.deadline.unwrap_or(Time::END);
        if request.class == Class::Batch {
            return deadline;
        }
        let longest = self.longest_wait(is_promised);
        let patience = if self.drain.per_second().is_some() {
            longest.mul_f64(PATIENCE)
        } else {
            longest
        };
        deadline.min(now + patience)
    }

    /// The work that would be done before a request has its turn.
    pub(super) fn ahead(&self, request: &Request, charge: u64, is_promised: bool) -> u64 {
        let caller = request.subject.caller;
        let queued = self.queue.ahead(caller, request.class, charge, is_promised);
        if is_promised || self.queue.is_behind(caller) {
            return queued;
        }
        queued
            .saturating_add(self.excess())
            .saturating_add(self.promises.held_back(caller))
    }

    /// The work until one of those that run has ended, on average. Of a few places it is most of what is waited for.
    fn until_one_ends(&self) -> u64 {
        self.charged / (self.running.len() as u64).max(1)
    }

    /// After a cut, nobody has its turn before so much work has ended.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    fn excess(&self) -> u64 {
        let tokens = self.tokens as f64;
        let excess = (tokens + self.reserve() as f64 - self.law.tokens()).max(0.0);
        (self.charged as f64 * (excess / tokens.max(1.0)).min(1.0)) as u64
    }

    pub(super) fn reason_against(
        &self,
        now: Time,
        request: &Request,
        ahead: u64,
        is_promised: bool,
    ) -> Option<Reason> {
        if self.queue.of_class(request.class) >= self.setup.queue {
            return Some(Reason::QueueFull);
        }
        // Before anything is known of the models' pace everybody waits for as long as may be.
        let wait = self.drain.time_for(ahead)?;
        if request.class == Class::Interactive && wait > self.longest_wait(is_promised) {
            return Some(Reason::EstimatedWait);
        }
        let comes_too_late = |deadline| now + wait >= deadline;
        request
            .deadline
            .is_some_and(comes_too_late)
            .then_some(Reason::Deadline)
    }

    /// What a request is told that has waited for longer than was estimated, or beyond its deadline. No time is kept for it: while
    /// models are slower than they were, times that nobody comes for would keep out who does come.
    pub(super) fn waited(&mut self, waiting: &Waiting) -> Saturated {
        let Waiting {
            request,
            charge,
            until,
            ..
        } = *waiting;
        let is_late = request.deadline.is_some_and(|deadline| deadline <= until);
        let ahead = self
            .queue
            .ahead(request.subject.caller, request.class, charge, false);
        let wait = self.drain.time_for(ahead).unwrap_or_default().max(SOONEST);
        Saturated {
            wait: wait + self.promises.spread(self.setup.wait),
            booked: false,
            reason: if is_late { Reason::Deadline } else { Reason::Waited },
        }
    }

    /// Tells a time, which is kept for the request if it can be recognised. `broken`: the promise with which it has come.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        request: &Request,
        output: u64,
        broken: Option<Claim>,
        reason: Reason,
    ) -> Saturated {
        let booked = |due: Time| Saturated {
            wait: due.since(now),
            booked: true,
            reason,
        };
        self.turned_away = true;
        let caller = request.subject.caller;
        let charge = charge(request.input_tokens, output);
        if let Some(broken) = broken {
            // Before those whose time is not told yet, when all that has come at its time has had its turn.
            let ahead = self.queue.ahead(caller, request.class, charge, true);
            let wait = self.drain.time_for(ahead).unwrap_or(self.setup.wait);
            return booked(self.promises.move_to(broken.id, now + wait.max(SOONEST)));
        }
        let told = request
            .fingerprint
            .and_then(|fingerprint| self.promises.tell(now, request.subject, fingerprint));
        if let Some(due) = told.filter(|due| *due > now) {
            return booked(due);
        }
        let queued = self.queue.ahead(caller, request.class, charge, false);
        let promised = self.promises.ahead(caller, charge);
        let ahead = queued.saturating_add(promised).saturating_add(promised / SPARE);
        let ahead = ahead.saturating_add(self.until_one_ends());
        let wait = self.drain.time_for(ahead).unwrap_or(self.setup.wait);
        // It finds a queue of half the usual length.
        let wait = wait.saturating_sub(self.setup.wait / 2).max(SOONEST);
        let cost = Cost {
            requests: 1,
            input_tokens: request.input_tokens,
            output_tokens: output,
            nano_usd: 0,
        };
        let due = request.fingerprint.and_then(|fingerprint| {
            self.promises
                .book(now, now + wait, request.subject, cost, fingerprint)
        });
        due.map_or_else(
            || Saturated {
                wait: wait.min(HORIZON) + self.promises.spread(HORIZON),
                booked: false,
                reason,
            },
            booked,
        )
    }
}

/// After so many times as long as was allowed for by an estimate, a queued request is refused.
const PATIENCE: f64 = 1.5;
/// Times are promised for all that the models get done but for one part in so many more: what they get done in a minute varies by
/// a tenth.
const SPARE: u64 = 3;
