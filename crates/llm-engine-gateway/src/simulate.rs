//! What policies would do to requests, in virtual time: the limiter of production, the calendars of production and the
//! rule of production for holding, with a clock that jumps from one event to the next. Nothing here waits or does I/O.
//!
//! What is not simulated: the models. Every admitted request runs at once and for as long as it is said to; whether a
//! model is full, and learned output reservations (`output_reservation = "learned"`), play no part. All requests come
//! from one address and for no known user.

mod client;
mod quotas;
mod report;
mod timeline;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{
    Cost, Fingerprint, Limiter, QuotaError, Refusal as NotAdmitted, Refused, Reservation, Subject, Time, User,
};

use crate::arrival::route_number;
use crate::hold::{Held, Holding};
use crate::names::{Names, team_name};
use crate::policies::{Policies, name_all};
use crate::price::cost;
use crate::{CallerSetup, PolicySetup, PriceSetup, Refusal};

pub use client::Retry;
pub use report::{BookingCounts, CallerReport, PolicyReport, QuotaUse, SimulationReport, Tally, Waits};
pub use timeline::{Moment, Timeline};

use quotas::Quotas;

/// What a simulation is made from.
#[derive(Debug)]
pub struct SimulationSetup {
    /// The models that are known.
    pub models: Vec<SimulatedModel>,
    /// The callers that are known.
    pub callers: Vec<CallerSetup>,
    /// The limits.
    pub policies: Vec<PolicySetup>,
    /// The time on the wall when it begins, by which calendar windows begin.
    pub start: Timestamp,
    /// Of all that is random: the same seed and the same requests give the same report.
    pub seed: u64,
}

/// What a simulation has to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedModel {
    /// Its name.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// What it costs.
    pub price: PriceSetup,
}

/// One request, and what would become of it if it were admitted.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedRequest<'a> {
    /// Who sends it. A caller that is not known is a team of its own.
    pub caller: &'a str,
    /// The model, by any of its names. One that is not known costs nothing.
    pub model: &'a str,
    /// One of [`ROUTES`](crate::ROUTES).
    pub route: &'a str,
    /// What it reserves.
    pub asked: Tokens,
    /// What it really uses. `None`: no model works on it, although the policies admit it.
    pub used: Option<Tokens>,
    /// How long it runs once it is admitted.
    pub lasts: Duration,
    /// By what it is recognised when it comes again.
    pub fingerprint: Fingerprint,
    /// What its client does when it is refused.
    pub retry: Retry,
    /// How often the client tries at most.
    pub attempts: u32,
}

/// An amount of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

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
    report: Report,
}

/// What is counted while it runs.
#[derive(Debug)]
struct Report {
    total: Tally,
    policies: Vec<Tally>,
    /// By the numbers of callers.
    callers: Vec<CallerTally>,
    /// By the numbers of models that are not in the setup.
    unknown_models: BTreeMap<u32, u64>,
    bookings: BookingCounts,
    quotas: Quotas,
    timeline: Timeline,
    /// All whom and what there were requests for, by caller, model and route.
    subjects: HashMap<(u32, u32, u32), Subject>,
    last_decision: Time,
}

#[derive(Debug, Clone, Default)]
struct CallerTally {
    tally: Tally,
    /// Refused calls by policy.
    refused_by: Vec<u64>,
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
        let quotas = Quotas::new(&policies.setups);
        Ok(Self {
            limiter: Limiter::new(policies.limits.to_vec()),
            report: Report {
                total: Tally::default(),
                policies: vec![Tally::default(); policies.limits.len()],
                callers: Vec::new(),
                unknown_models: BTreeMap::new(),
                bookings: BookingCounts::default(),
                timeline: Timeline::new(quotas.len()),
                quotas,
                subjects: HashMap::new(),
                last_decision: Time::ZERO,
            },
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
        self.report
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
        while self.report.timeline.end() <= now {
            let begin = self.report.timeline.begin_next();
            for subject in self.report.subjects.values() {
                let levels = self.limiter.levels(begin, *subject);
                let applies = applying(&self.policies, *subject);
                self.report
                    .quotas
                    .note(applies, &levels, &mut self.report.timeline);
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
            self.report
                .tally(pending.subject.caller, pending.applies, |tally| tally.calls += 1);
        }
        let comes_as_booked = std::mem::take(&mut pending.is_booked);
        let decision = self
            .limiter
            .admit_or_book(now, pending.subject, pending.asked, pending.fingerprint);
        self.report.last_decision = now;
        // Who is the next has the same booking still, a moment later.
        let is_next = decision.as_ref().is_err_and(NotAdmitted::is_next);
        if comes_as_booked && !is_next {
            self.report.bookings.claimed += 1;
            self.report.bookings.kept += u64::from(decision.is_ok());
        }
        let levels = self.limiter.levels(now, pending.subject);
        self.report
            .quotas
            .note(pending.applies, &levels, &mut self.report.timeline);
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
        self.report.tally(subject.caller, applies, |tally| {
            tally.admitted += 1;
            tally.waits.add(waited);
        });
        self.report
            .tally_by(subject.caller, would_refuse, |tally| tally.would_refuse += 1);
        self.report.timeline.now().admitted += 1;
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
        self.report.bookings.told += u64::from(refusal.booked && is_another);
        let until = refusal.retry_after.map(|wait| self.now + wait);
        let until = until.filter(|until| !hold.is_zero() && *until <= pending.called + hold);
        let caller = pending.subject.caller;
        if let Some(until) = until {
            if pending.held.is_none() {
                pending.held = self.holding.enter(caller, 0, || ());
            }
            if pending.held.is_some() {
                if !std::mem::replace(&mut pending.was_held, true) {
                    self.report.tally_by(caller, refused_by, |tally| tally.held += 1);
                    self.report.timeline.now().held += 1;
                }
                pending.is_booked = refusal.booked;
                self.later(until, Event::Call(pending));
                return;
            }
        }
        if let Some(held) = pending.held.take() {
            held.ended();
        }
        self.report
            .tally_by(caller, refused_by, |tally| tally.refused += 1);
        self.report.refused_by(caller, refused_by);
        self.report.timeline.now().refused += 1;
        match pending
            .retry
            .wait(&refusal, pending.calls, pending.attempts, &mut self.random)
        {
            Some(wait) => {
                pending.is_booked = refusal.booked && pending.retry == Retry::Told;
                self.later(self.now + wait, Event::Call(pending));
            }
            None => self
                .report
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
        self.report.tally(caller, applies, |tally| tally.settle(used));
        self.report.quotas.settle(counted_by, used, self.now.since(began));
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
            *self.report.unknown_models.entry(model).or_default() += 1;
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
        self.report.subjects.entry(key).or_insert(subject);
        let callers = self.report.callers.len().max(caller_number as usize + 1);
        self.report.callers.resize_with(callers, CallerTally::default);
        subject
    }

    fn applying(&self, subject: Subject) -> u64 {
        applying(&self.policies, subject)
    }

    /// The policies that refused.
    fn bits(&self, refused: &[Refused]) -> u64 {
        let is_among = |name: &Arc<str>| refused.iter().any(|refused| refused.policy == *name);
        bits(self.policies.limits.iter().map(|policy| is_among(&policy.name)))
    }

    fn wall(&self, now: Time) -> Timestamp {
        // Only at the end of time can it not be said.
        self.start
            .checked_add(now.since(Time::ZERO))
            .unwrap_or(Timestamp::MAX)
    }
}

impl Report {
    /// For the request as a whole: of all, of its caller, and of these policies.
    fn tally(&mut self, caller: u32, policies: u64, mut change: impl FnMut(&mut Tally)) {
        change(&mut self.total);
        change(&mut self.callers[caller as usize].tally);
        each_bit(policies, |index| change(&mut self.policies[index]));
    }

    /// For what some policies did, if there are any.
    fn tally_by(&mut self, caller: u32, policies: u64, change: impl FnMut(&mut Tally)) {
        if policies != 0 {
            self.tally(caller, policies, change);
        }
    }

    fn refused_by(&mut self, caller: u32, policies: u64) {
        let counts = &mut self.callers[caller as usize].refused_by;
        counts.resize(self.policies.len(), 0);
        each_bit(policies, |index| counts[index] += 1);
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

fn each_bit(bits: u64, mut each: impl FnMut(usize)) {
    let mut rest = bits;
    while rest != 0 {
        each(rest.trailing_zeros() as usize);
        rest &= rest - 1;
    }
}
