use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;
use llm_engine_limit::{Cost, HORIZON, Time};

use crate::average::Average;
use crate::awaited::{Awaited, Sent};
use crate::drain::Drain;
use crate::law::{Law, Look};
use crate::promises::{Claim, Promises};
use crate::queue::{FairQueue, Waiting};
use crate::unloaded::Unloaded;
use crate::{Limit, Reason, Request, Saturated};

/// What an [`Admission`] is made with.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionSetup {
    /// How many requests may be in flight.
    pub limit: Limit,
    /// The longest that a request waits for its turn, as far as can be told beforehand.
    pub wait: Duration,
    /// The same for who comes at the time that was promised to it.
    pub booked_wait: Duration,
    /// The most requests in the queue.
    pub queue: usize,
}

/// One pool of models: which requests are with them, and which wait for it.
#[derive(Debug)]
pub struct Admission {
    setup: AdmissionSetup,
    law: Law,
    queue: FairQueue,
    /// When each of the queue is refused at the latest.
    until: BTreeSet<(Time, u64)>,
    running: BTreeMap<u64, Running>,
    next_key: u64,
    awaited: Awaited,
    unloaded: HashMap<u32, Unloaded, FixedState>,
    drain: Drain,
    promises: Promises,
    output: Average,
    charged: u64,
    latest: Time,
    /// Seconds until first tokens are due, seconds that prompts take to be read, and the squares of these.
    due: Average,
    reading: Average,
    reading_squared: Average,
    /// The most that was in flight lately.
    peak: f64,
}

#[derive(Debug)]
struct Running {
    caller: u32,
    charge: u64,
    input_tokens: u64,
    sent: Option<Sent>,
}

/// Proof of being among the requests that run, to be handed back to [`Admission::end`] exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place is taken until it is handed back"]
pub struct Place {
    key: u64,
}

/// A request in the queue, to be handed back to [`Admission::cancel`] if its caller goes before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queued {
    key: u64,
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
    /// How many requests may be in flight.
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

impl Admission {
    /// A pool in which nothing runs.
    #[must_use]
    pub fn new(setup: AdmissionSetup) -> Self {
        Self {
            law: Law::new(setup.limit),
            setup,
            queue: FairQueue::new(),
            until: BTreeSet::new(),
            running: BTreeMap::new(),
            next_key: 0,
            awaited: Awaited::default(),
            unloaded: HashMap::default(),
            drain: Drain::new(),
            promises: Promises::new(),
            output: Average::starting(256.0, 0.02),
            charged: 0,
            latest: Time::ZERO,
            due: Average::new(0.05),
            reading: Average::new(0.02),
            reading_squared: Average::new(0.02),
            peak: 0.0,
        }
    }

    /// A request arrives.
    ///
    /// # Errors
    /// [`Saturated`] if it would have to wait for too long.
    pub fn arrive(&mut self, now: Time, request: &Request) -> Result<Arrival, Saturated> {
        self.pass_time(now);
        let caller = request.subject.caller;
        let output = self.expected_output(request.most_output_tokens);
        let charge = charge(request.input_tokens, output);
        let claim = request
            .fingerprint
            .and_then(|fingerprint| self.promises.find(now, request.subject, fingerprint));
        if self.queue.is_empty() && self.running.len() < self.law.limit() {
            if let Some(claim) = claim {
                self.promises.end(claim.id, claim.is_due.then_some(true));
            }
            self.queue.pass(caller, charge);
            return Ok(Arrival::Place(self.take_place(
                caller,
                charge,
                request.input_tokens,
            )));
        }
        let is_promised = claim.is_some_and(|claim| claim.is_due);
        let ahead = self.ahead(request, charge, is_promised);
        if let Some(reason) = self.reason_against(now, request, ahead, is_promised) {
            let broken = claim.filter(|claim| claim.is_due);
            return Err(self.refuse(now, request, output, broken, reason));
        }
        if let Some(claim) = claim {
            self.promises.end(claim.id, is_promised.then_some(true));
        }
        let patience = now + self.longest_wait(is_promised).mul_f64(PATIENCE);
        let until = request
            .deadline
            .map_or(patience, |deadline| deadline.min(patience));
        let key = self.queue.push(Waiting {
            subject: request.subject,
            class: request.class,
            charge,
            input_tokens: request.input_tokens,
            is_promised,
            until,
        });
        self.until.insert((until, key));
        Ok(Arrival::Queued(Queued { key }))
    }

    /// What has come about for those in the queue, one at a time: to be asked whenever something was called here, and at
    /// [`Self::next_turn`], until there is nothing more.
    pub fn turn(&mut self, now: Time) -> Option<Turn> {
        self.pass_time(now);
        if let Some((until, key)) = self.until.first().copied()
            && until <= now
        {
            self.until.remove(&(until, key));
            let waiting = self.queue.remove(key)?;
            let wait = self.drain.time_for(self.queue.ahead(
                waiting.subject.caller,
                waiting.class,
                waiting.charge,
                false,
            ));
            let saturated = Saturated {
                wait: wait.unwrap_or_default().max(SOONEST),
                booked: false,
                reason: Reason::Waited,
            };
            return Some(Turn::Refused(Queued { key }, saturated));
        }
        if self.running.len() >= self.law.limit() {
            return None;
        }
        let (key, waiting) = self.queue.pop()?;
        self.until.remove(&(waiting.until, key));
        let place = self.take_place(waiting.subject.caller, waiting.charge, waiting.input_tokens);
        Some(Turn::Place(Queued { key }, place))
    }

    /// When [`Self::turn`] has something to say though nothing else happens.
    #[must_use]
    pub fn next_turn(&self) -> Option<Time> {
        let until = self.until.first().map(|(until, _)| *until);
        // The law may let more in.
        until.map(|until| until.min(self.law.next().max(self.latest)))
    }

    /// A queued request's caller has gone. Nothing happens if its turn had come already.
    pub fn cancel(&mut self, queued: Queued) {
        if let Some(waiting) = self.queue.remove(queued.key) {
            self.until.remove(&(waiting.until, queued.key));
        }
    }

    /// The request with this place was sent to a deployment: for the first time, or to another one.
    pub fn sent(&mut self, now: Time, place: &Place, deployment: u32) {
        let now = self.pass_time(now);
        let in_flight = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let Some(running) = self.running.get_mut(&place.key) else {
            return;
        };
        if let Some(sent) = running.sent.take() {
            self.awaited.remove(place.key, &sent);
        }
        let due = self
            .unloaded
            .entry(deployment)
            .or_default()
            .due(running.input_tokens);
        self.due.add(due.after.as_secs_f64());
        self.reading.add(due.reading);
        self.reading_squared.add(due.reading * due.reading);
        let sent = Sent {
            at: now,
            deployment,
            due: now + due.after,
            in_flight,
            is_quiet: f64::from(in_flight) < self.peak * QUIET,
        };
        running.sent = Some(sent);
        self.awaited.add(place.key, sent);
    }

    /// The first token of its answer has come.
    pub fn first_token(&mut self, now: Time, place: &Place) {
        let now = self.pass_time(now);
        let Some(running) = self.running.get_mut(&place.key) else {
            return;
        };
        let Some(sent) = running.sent.take() else { return };
        self.awaited.remove(place.key, &sent);
        if now < sent.due {
            self.peak = self.peak.max(f64::from(sent.in_flight));
        }
        let unloaded = self.unloaded.entry(sent.deployment).or_default();
        unloaded.learn(running.input_tokens, now.since(sent.at), sent.is_quiet);
    }

    /// The request has ended, and was served so much: nothing, if it never ran.
    pub fn end(&mut self, now: Time, place: Place, input_tokens: u64, output_tokens: u64) {
        self.pass_time(now);
        let Some(running) = self.running.remove(&place.key) else {
            return;
        };
        if let Some(sent) = running.sent {
            self.awaited.remove(place.key, &sent);
        }
        self.charged -= running.charge;
        let served = charge(input_tokens, output_tokens);
        self.drain.add(served);
        self.queue.end(running.caller, running.charge, served);
        if output_tokens > 0 {
            #[expect(clippy::cast_precision_loss, reason = "an average")]
            self.output.add(output_tokens as f64);
        }
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            limit: self.law.limit(),
            in_flight: self.running.len(),
            waiting: self.awaited.late(),
            queued: self.queue.len(),
            per_second: self.drain.per_second(),
        }
    }

    fn take_place(&mut self, caller: u32, charge: u64, input_tokens: u64) -> Place {
        let key = self.next_key;
        self.next_key += 1;
        self.charged += charge;
        let running = Running {
            caller,
            charge,
            input_tokens,
            sent: None,
        };
        self.running.insert(key, running);
        Place { key }
    }

    fn longest_wait(&self, is_promised: bool) -> Duration {
        if is_promised {
            self.setup.booked_wait
        } else {
            self.setup.wait
        }
    }

    /// The work that would be done before a request has its turn.
    fn ahead(&self, request: &Request, charge: u64, is_promised: bool) -> u64 {
        let caller = request.subject.caller;
        let queued = self.queue.ahead(caller, request.class, charge, is_promised);
        if is_promised {
            return queued;
        }
        // After a cut, nobody has its turn before so many have ended.
        let excess = self.running.len().saturating_sub(self.law.limit()) as u64;
        let excess = excess * self.charged / self.running.len().max(1) as u64;
        let promised = self.promises.held_back(caller);
        let promised = promised.saturating_mul(self.queue.callers_with(caller));
        queued.saturating_add(excess).saturating_add(promised)
    }

    fn reason_against(&self, now: Time, request: &Request, ahead: u64, is_promised: bool) -> Option<Reason> {
        if self.queue.len() >= self.setup.queue {
            return Some(Reason::QueueFull);
        }
        let Some(wait) = self.drain.time_for(ahead) else {
            // Before anything is known of the models' pace: no more than would run next.
            return (self.queue.len() >= self.law.limit()).then_some(Reason::EstimatedWait);
        };
        if wait > self.longest_wait(is_promised) {
            return Some(Reason::EstimatedWait);
        }
        let comes_too_late = |deadline| now + wait >= deadline;
        request
            .deadline
            .is_some_and(comes_too_late)
            .then_some(Reason::Deadline)
    }

    /// Tells a time, which is kept for the request if it can be recognised. `broken`: the promise with which it has come.
    fn refuse(
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
        let caller = request.subject.caller;
        let charge = charge(request.input_tokens, output);
        let queued = self.queue.ahead(caller, request.class, charge, false);
        if let Some(broken) = broken {
            // Before those whose time is not told yet, as soon as there may be room.
            let wait = self.drain.time_for(queued).unwrap_or(self.setup.wait);
            let wait = wait.saturating_sub(self.setup.wait).max(SOONEST);
            return booked(self.promises.move_to(broken.id, now + wait));
        }
        let told = request
            .fingerprint
            .and_then(|fingerprint| self.promises.tell(now, request.subject, fingerprint));
        if let Some(due) = told.filter(|due| *due > now) {
            return booked(due);
        }
        let promised = self.promises.ahead(caller, charge);
        let ahead = queued.saturating_add(promised).saturating_add(promised / SPARE);
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
                wait: wait.min(HORIZON) + self.promises.spread(),
                booked: false,
                reason,
            },
            booked,
        )
    }

    fn expected_output(&self, most: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an average of amounts"
        )]
        let output = self.output.value() as u64;
        output.min(most)
    }

    fn pass_time(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        let now = self.latest;
        self.promises.pass_time(now, self.setup.wait);
        if now < self.law.next() {
            return now;
        }
        self.awaited.pass_time(now);
        let in_flight = self.running.len();
        self.drain.look(now, in_flight * 5 >= self.law.limit() * 4);
        self.queue.set_credit(self.drain.work_in(CREDIT));
        self.peak *= PEAK_FADES;
        let look = Look {
            in_flight,
            late: self.awaited.late(),
            late_since_cut: self.awaited.late_since(self.law.last_cut()),
            level: self.awaited.level(),
            due: self.due.value(),
            // Whoever comes finds a long one more often than a short one.
            reading: self.reading_squared.value() / self.reading.value().max(1e-6),
        };
        self.law.look(now, look);
        now
    }
}

/// Work: reading a token, or half of writing one.
pub(crate) fn charge(input_tokens: u64, output_tokens: u64) -> u64 {
    let charge = input_tokens.saturating_add(output_tokens.saturating_mul(2));
    charge.clamp(1, MOST_CHARGE)
}

/// Above any request, and far below what sums overflow at.
const MOST_CHARGE: u64 = 1 << 40;
/// After so many times as long as was allowed for, a queued request is refused.
const PATIENCE: f64 = 1.5;
/// Nobody is told to come back before.
const SOONEST: Duration = Duration::from_millis(500);
/// Times are promised for all that the models get done but for one part in so many more.
const SPARE: u64 = 4;
/// By how much of the models' time a caller may be behind others that wait and still catch up.
const CREDIT: Duration = Duration::from_secs(3);
/// Below this part of what was in flight lately it is quiet.
const QUIET: f64 = 0.6;
/// In half a second; by half within three minutes.
const PEAK_FADES: f64 = 0.998;
