//! What policies would do to requests, in virtual time: the limiter of production, the calendars of production and the
//! rule of production for holding, with a clock that jumps from one event to the next. Nothing here waits or does I/O.
//!
//! What is not simulated: the models. Every admitted request runs at once and for as long as it is said to; whether a
//! model is full, and learned output reservations (`output_reservation = "learned"`), play no part. All requests come
//! from one address and for no known user.

mod client;
mod counted;
mod quotas;
mod report;
mod request;
mod timeline;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{
    Cost, Fingerprint, Limiter, Name, QuotaError, Refusal as NotAdmitted, Refused, Reservation, Subject,
    Time, User,
};

use crate::arrival::route_number;
use crate::hold::{Held, Holding};
use crate::names::{Names, team_name};
use crate::policies::{Policies, name_all};
use crate::price::cost;
use crate::{PriceSetup, Refusal};

pub use client::Retry;
pub use report::{BookingCounts, CallerReport, PolicyReport, QuotaUse, SimulationReport, Tally, Waits};
pub use request::{SimulatedModel, SimulatedRequest, SimulationSetup, Tokens};
pub use timeline::{Moment, Timeline};

use counted::{CallerTally, Counted};

/// Requests under policies, in virtual time. Memory is bounded by the requests that are open at a time and by the number
/// of callers, not by how many requests there are.
#[derive(Debug)]
pub struct Simulation {
    limiter: Limiter,
    policies: Policies,
    names: Names,
    /// Callers, teams and models below these numbers are in the setup.
    known_callers: usize,
    known_models: usize,
    teams: HashMap<u32, u32>,
    prices: HashMap<u32, PriceSetup>,
    start: Timestamp,
    /// When the calendars have to be worked out again.
    next_look: Time,
    holding: Arc<Holding>,
    random: fastrand::Rng,
    now: Time,
    /// By time, then in the order in which they came up.
    events: BTreeMap<(Time, u64), Event>,
    next_event: u64,
    counted: Counted,
}

/// Something that happens later.
#[derive(Debug)]
enum Event {
    /// A client comes, or a held request's time has come.
    Call(Pending),
    /// A request has run.
    End(Running),
}

/// A request that is not admitted yet.
#[derive(Debug)]
struct Pending {
    subject: Subject,
    asked: Cost,
    used: Cost,
    lasts: Duration,
    fingerprint: Fingerprint,
    retry: Retry,
    attempts: u32,
    /// The policies that apply, by their bits.
    applies: u64,
    /// When its first call came, and the one that is decided about.
    begun: Time,
    called: Time,
    calls: u32,
    /// While it waits in the server.
    held: Option<Held>,
    was_held: bool,
    /// It comes at a time that is kept for it.
    is_booked: bool,
}

#[derive(Debug)]
struct Running {
    reservation: Reservation,
    used: Cost,
    caller: u32,
    began: Time,
    /// The policies that count it, by their bits.
    counted_by: u64,
    applies: u64,
}

/// Calendars reach a hundred days ahead.
const LOOK_AT_THE_WALL: Duration = Duration::from_secs(30 * 86_400);

impl Simulation {
    /// A simulation in which nothing has been used yet.
    ///
    /// # Errors
    /// [`QuotaError`] if a budget can't be counted.
    pub fn new(setup: SimulationSetup) -> Result<Self, QuotaError> {
        let SimulationSetup {
            models,
            callers,
            policies,
            start,
            seed,
        } = setup;
        let mut names = Names::default();
        name_all(&mut names, &[], &callers);
        let mut prices = HashMap::new();
        for SimulatedModel { name, aliases, price } in &models {
            names.name_model(name, aliases);
            prices.insert(names.model(name), *price);
        }
        let teams = callers.iter().map(|caller| {
            let team = team_name(&caller.name, caller.team.as_deref());
            (names.callers.number(&caller.name), names.teams.number(&team))
        });
        let teams = teams.collect();
        let policies = Policies::new(policies, &mut names, Time::ZERO, start)?;
        Ok(Self {
            limiter: Limiter::new(policies.limits.to_vec()),
            counted: Counted::new(&policies.setups),
            known_callers: callers.len(),
            known_models: models.len(),
            policies,
            names,
            teams,
            prices,
            start,
            next_look: Time::ZERO + LOOK_AT_THE_WALL,
            holding: Arc::default(),
            random: fastrand::Rng::with_seed(seed),
            now: Time::ZERO,
            events: BTreeMap::new(),
            next_event: 0,
        })
    }

    /// A request arrives. They must come in the order of their times: one that is earlier than the one before arrives
    /// together with it.
    pub fn offer(&mut self, at: Timestamp, request: &SimulatedRequest<'_>) {
        let at = Duration::try_from(at.duration_since(self.start)).unwrap_or_default();
        let at = Time::after_epoch(at).max(self.now);
        self.run_until(at);
        self.advance(at);
        let SimulatedRequest {
            caller,
            model,
            route,
            asked,
            used,
            lasts,
            fingerprint,
            retry,
            attempts,
        } = *request;
        let subject = self.subject(caller, model, route);
        let price = self.prices.get(&subject.model).copied().unwrap_or_default();
        let applies = self.applying(subject);
        let pending = Pending {
            subject,
            asked: cost(price, asked.input, asked.output),
            used: used.map_or(Cost::NOTHING, |used| cost(price, used.input, used.output)),
            lasts,
            fingerprint,
            retry,
            attempts,
            applies,
            begun: at,
            called: at,
            calls: 0,
            held: None,
            was_held: false,
            is_booked: false,
        };
        self.counted
            .tally(subject.caller, applies, |tally| tally.requests += 1);
        self.call(pending);
    }

    /// Lets everything end that has begun, and says what there was.
    #[must_use]
    pub fn finish(mut self) -> SimulationReport {
        self.run_until(Time::END);
        self.into_report()
    }

    fn run_until(&mut self, until: Time) {
        while let Some(first) = self.events.first_entry() {
            let (at, _) = *first.key();
            if at > until {
                return;
            }
            let event = first.remove();
            self.advance(at);
            match event {
                Event::Call(pending) => self.call(pending),
                Event::End(running) => self.end(running),
            }
        }
    }

    /// Sets the clock. The timeline notes how every quota stands when a moment of it begins.
    fn advance(&mut self, now: Time) {
        while self.counted.timeline.end() <= now {
            let begin = self.counted.timeline.begin_next();
            for subject in self.counted.subjects.values() {
                let levels = self.limiter.levels(begin, *subject);
                let applies = applying(&self.policies, *subject);
                self.counted
                    .quotas
                    .note(applies, &levels, &mut self.counted.timeline);
            }
        }
        if now >= self.next_look {
            for calendar in self.policies.calendars(now, self.wall(now)) {
                self.limiter.follow(now, &calendar);
            }
            self.next_look = now + LOOK_AT_THE_WALL;
        }
        self.now = now;
    }

    /// One decision: about a call, or about a held request whose time has come.
    fn call(&mut self, mut pending: Pending) {
        let now = self.now;
        if pending.held.is_none() {
            pending.called = now;
            pending.calls += 1;
            self.counted
                .tally(pending.subject.caller, pending.applies, |tally| tally.calls += 1);
        }
        let comes_as_booked = std::mem::take(&mut pending.is_booked);
        let decision = self
            .limiter
            .admit_or_book(now, pending.subject, pending.asked, pending.fingerprint);
        self.counted.last_decision = now;
        // Who is the next has the same booking still, a moment later.
        let is_next = decision.as_ref().is_err_and(NotAdmitted::is_next);
        if comes_as_booked && !is_next {
            self.counted.bookings.claimed += 1;
            self.counted.bookings.kept += u64::from(decision.is_ok());
        }
        let levels = self.limiter.levels(now, pending.subject);
        self.counted
            .quotas
            .note(pending.applies, &levels, &mut self.counted.timeline);
        match decision {
            Ok(reservation) => self.admit(pending, reservation),
            Err(refusal) => self.refuse(pending, refusal),
        }
    }

    fn admit(&mut self, pending: Pending, reservation: Reservation) {
        let Pending {
            subject,
            used,
            lasts,
            applies,
            begun,
            held,
            ..
        } = pending;
        if let Some(held) = held {
            held.ended();
        }
        let would_refuse = if reservation.would_be_refused() {
            self.bits(&self.limiter.observed(&reservation))
        } else {
            0
        };
        let waited = self.now.since(begun);
        self.counted.tally(subject.caller, applies, |tally| {
            tally.admitted += 1;
            tally.waits.add(waited);
        });
        self.counted
            .tally_by(subject.caller, would_refuse, |tally| tally.would_refuse += 1);
        self.counted.timeline.now().admitted += 1;
        let running = Running {
            reservation,
            used,
            caller: subject.caller,
            began: self.now,
            counted_by: applies & !would_refuse,
            applies,
        };
        self.later(self.now + lasts, Event::End(running));
    }

    /// Held if it may be, as in `admit.rs`: until the told time if that is no further than the shortest hold of the policies
    /// that refuse, counted from when the call came.
    fn refuse(&mut self, mut pending: Pending, refusal: NotAdmitted) {
        let refused = refusal.refused();
        let refused_by = self.bits(&refused);
        let hold = self.policies.hold(&refusal);
        let is_another = !refusal.is_next();
        let refusal = Refusal::from(refusal);
        self.counted.bookings.told += u64::from(refusal.booked && is_another);
        let until = refusal.retry_after.map(|wait| self.now + wait);
        let until = until.filter(|until| !hold.is_zero() && *until <= pending.called + hold);
        let caller = pending.subject.caller;
        if let Some(until) = until {
            if pending.held.is_none() {
                pending.held = self.holding.enter(caller, 0, || ());
            }
            if pending.held.is_some() {
                if !std::mem::replace(&mut pending.was_held, true) {
                    self.counted.tally_by(caller, refused_by, |tally| tally.held += 1);
                    self.counted.timeline.now().held += 1;
                }
                pending.is_booked = refusal.booked;
                self.later(until, Event::Call(pending));
                return;
            }
        }
        if let Some(held) = pending.held.take() {
            held.ended();
        }
        self.counted
            .tally_by(caller, refused_by, |tally| tally.refused += 1);
        self.counted.refused_by(caller, refused_by);
        self.counted.timeline.now().refused += 1;
        match pending
            .retry
            .wait(&refusal, pending.calls, pending.attempts, &mut self.random)
        {
            Some(wait) => {
                pending.is_booked = refusal.booked && pending.retry == Retry::Told;
                self.later(self.now + wait, Event::Call(pending));
            }
            None => self
                .counted
                .tally(caller, pending.applies, |tally| tally.lost += 1),
        }
    }

    fn end(&mut self, running: Running) {
        let Running {
            reservation,
            used,
            caller,
            began,
            counted_by,
            applies,
        } = running;
        self.limiter.settle(self.now, reservation, used);
        self.counted.tally(caller, applies, |tally| tally.settle(used));
        self.counted
            .quotas
            .settle(counted_by, used, self.now.since(began));
    }

    fn later(&mut self, at: Time, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    fn subject(&mut self, caller: &str, model: &str, route: &str) -> Subject {
        let caller_number = self.names.callers.number(caller);
        let teams = &mut self.names.teams;
        let team = self.teams.entry(caller_number);
        let team = *team.or_insert_with(|| teams.number(&team_name(caller, None)));
        let model = self.names.model(model);
        if model as usize >= self.known_models {
            *self.counted.unknown_models.entry(model).or_default() += 1;
        }
        let subject = Subject {
            caller: caller_number,
            team,
            model,
            route: route_number(route).unwrap_or(u32::MAX),
            address: 0,
            user: User::UNKNOWN,
        };
        let key = (subject.caller, subject.model, subject.route);
        self.counted.subjects.entry(key).or_insert(subject);
        let callers = self.counted.callers.len().max(caller_number as usize + 1);
        self.counted.callers.resize_with(callers, CallerTally::default);
        subject
    }

    fn applying(&self, subject: Subject) -> u64 {
        applying(&self.policies, subject)
    }

    /// The policies that refused.
    fn bits(&self, refused: &[Refused]) -> u64 {
        let is_among = |name: &Name| refused.iter().any(|refused| refused.policy == *name);
        bits(self.policies.limits.iter().map(|policy| is_among(&policy.name)))
    }

    fn wall(&self, now: Time) -> Timestamp {
        // Only at the end of time can it not be said.
        self.start
            .checked_add(now.since(Time::ZERO))
            .unwrap_or(Timestamp::MAX)
    }
}

fn applying(policies: &Policies, subject: Subject) -> u64 {
    bits(policies.limits.iter().map(|policy| policy.applies_to(subject)))
}

/// There are at most 64 policies, so each has a bit.
fn bits(are: impl Iterator<Item = bool>) -> u64 {
    are.enumerate()
        .fold(0, |bits, (index, is)| bits | u64::from(is) << index)
}
