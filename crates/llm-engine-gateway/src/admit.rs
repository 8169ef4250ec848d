use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_engine_limit::{Cost, Level, Limiter, Policy, Reservation, Subject, Time, Unit};
use tokio::time::Instant;

use crate::{Caller, Refusal, Route};

/// The limiter with the clock and the lock that it does not have itself.
#[derive(Debug)]
pub(crate) struct Limits {
    /// A plain mutex: it is held for a few table look-ups and never across an await.
    limiter: Mutex<Limiter>,
    epoch: Instant,
    counts_input: bool,
}

/// Proof of admission. Dropped, it settles: before anything was counted all of it is given back, then what has been
/// counted so far is charged.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Limits>,
    /// `None` once it is settled.
    reservation: Option<Reservation>,
    counted: Cost,
}

impl Limits {
    pub(crate) fn new(policies: Vec<Policy>) -> Self {
        let units = policies
            .iter()
            .flat_map(|policy| &policy.quotas)
            .map(|(unit, _)| *unit);
        let counts_input = units
            .clone()
            .any(|unit| matches!(unit, Unit::InputTokens | Unit::Tokens));
        Self {
            limiter: Mutex::new(Limiter::new(policies)),
            epoch: Instant::now(),
            counts_input,
        }
    }

    /// Whether any quota counts the tokens of prompts, so that it is worth asking for their number.
    pub(crate) fn counts_input(&self) -> bool {
        self.counts_input
    }

    /// Admits the request, or says why not and when.
    pub(crate) fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        route: &Route,
        cost: Cost,
    ) -> Result<Permit, Refusal> {
        let reservation = self.limiter().admit(self.now(), subject(caller, route), cost)?;
        Ok(Permit {
            limits: Arc::clone(self),
            reservation: Some(reservation),
            counted: Cost::NOTHING,
        })
    }

    pub(crate) fn levels(&self, caller: &Caller, route: &Route) -> Vec<Level> {
        self.limiter().levels(self.now(), subject(caller, route))
    }

    fn now(&self) -> Time {
        Time::after_epoch(self.epoch.elapsed())
    }

    /// A panic while the lock was held would be a bug in the limiter's arithmetic; its state is consistent between
    /// steps, and going on limiting beats refusing everybody.
    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// What is charged if nothing else becomes known.
    pub(crate) fn count(&mut self, usage: Cost) {
        self.counted = usage;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.limits
                .limiter()
                .settle(self.limits.now(), reservation, self.counted);
        }
    }
}

fn subject(caller: &Caller, route: &Route) -> Subject {
    Subject {
        caller: caller.id,
        team: caller.team,
        model: route.id,
    }
}
