mod room;
mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;
use llm_engine_limit::Time;

use crate::arrival::charge;
use crate::average::Average;
use crate::awaited::Awaited;
use crate::drain::Drain;
use crate::law::Law;
use crate::promises::Promises;
use crate::queue::{FairQueue, Waiting};
use crate::unloaded::Unloaded;
use crate::{Arrival, Class, Limit, Place, Queued, Request, Saturated, Standing, Turn};
use room::{MOST_TOKENS, QUIET};

/// What an [`Admission`] is made with.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionSetup {
    /// What may be in flight.
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
    /// How many of these nobody waits for.
    of_batches: usize,
    next_key: u64,
    awaited: Awaited,
    unloaded: HashMap<u32, Unloaded, FixedState>,
    /// How many requests wait in each deployment that tells, and since when that is known.
    reported: HashMap<u32, (Time, usize), FixedState>,
    drain: Drain,
    promises: Promises,
    output: Average,
    /// What all that run will be charged, as far as is known.
    charged: u64,
    /// The tokens of all that run, so far.
    tokens: u64,
    latest: Time,
    /// Until when room is kept free for callers that are behind.
    reserved_until: Time,
    /// How much of the time somebody waits or is turned away, and whether anybody was since the last look.
    crowd: Average,
    turned_away: bool,
    /// Seconds until first tokens are due, seconds that prompts take to be read, and the squares of these.
    due: Average,
    reading: Average,
    reading_squared: Average,
    /// The most tokens that were in flight lately without first tokens being late.
    peak: f64,
}

#[derive(Debug)]
struct Running {
    caller: u32,
    class: Class,
    charge: u64,
    input_tokens: u64,
    /// Tokens of its answer so far.
    written: u64,
    /// Whether its first token has come, so that its prompt was read.
    is_read: bool,
    sent: Option<Sent>,
}

/// A request was sent to a deployment.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Time,
    deployment: u32,
    /// When its first token is late.
    due: Time,
    /// The tokens in flight then.
    tokens: f64,
    /// Whether that was a quiet moment.
    is_quiet: bool,
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
            of_batches: 0,
            next_key: 0,
            awaited: Awaited::default(),
            unloaded: HashMap::default(),
            reported: HashMap::default(),
            drain: Drain::new(),
            promises: Promises::new(),
            output: Average::starting(256.0, 0.02),
            charged: 0,
            tokens: 0,
            latest: Time::ZERO,
            reserved_until: Time::ZERO,
            turned_away: false,
            crowd: Average::starting(0.0, 0.05),
            due: Average::new(0.1),
            reading: Average::new(0.02),
            reading_squared: Average::new(0.02),
            peak: 0.0,
        }
    }

    /// A request arrives. If it is queued, its turn may have come already.
    ///
    /// # Errors
    /// [`Saturated`] if it would have to wait for too long.
    pub fn arrive(&mut self, now: Time, request: &Request) -> Result<Arrival, Saturated> {
        let now = self.pass_time(now);
        let caller = request.subject.caller;
        let output = self.expected_output(request.most_output_tokens);
        let charge = charge(request.input_tokens, output);
        let claim = request
            .fingerprint
            .and_then(|fingerprint| self.promises.find(now, request.subject, fingerprint));
        self.keep_room(now, caller);
        if self.queue.is_empty() && self.has_room(caller, request.class, request.input_tokens) {
            if let Some(claim) = claim {
                self.promises.end(claim.id, claim.is_due.then_some(true));
            }
            self.queue.pass(caller, charge);
            let place = self.take_place(caller, request.class, charge, request.input_tokens);
            return Ok(Arrival::Place(place));
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
        let until = self.until(now, request, is_promised);
        let key = self.queue.push(Waiting {
            request: *request,
            charge,
            is_promised,
            until,
        });
        self.until.insert((until, key));
        Ok(Arrival::Queued(Queued { key }))
    }

    /// What has come about for those in the queue, one at a time: to be asked whenever something was called here, and at
    /// [`Self::next_turn`], until there is nothing more.
    pub fn turn(&mut self, now: Time) -> Option<Turn> {
        let now = self.pass_time(now);
        if let Some((until, key)) = self.until.first().copied()
            && until <= now
        {
            self.until.remove(&(until, key));
            let waiting = self.queue.remove(key)?;
            return Some(Turn::Refused(Queued { key }, self.waited(&waiting)));
        }
        let (_, Waiting { request, .. }) = self.queue.next()?;
        if !self.has_room(request.subject.caller, request.class, request.input_tokens) {
            return None;
        }
        let (key, waiting) = self.queue.pop()?;
        self.until.remove(&(waiting.until, key));
        let Request {
            subject,
            class,
            input_tokens,
            ..
        } = waiting.request;
        let place = self.take_place(subject.caller, class, waiting.charge, input_tokens);
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
        let Some(running) = self.running.get_mut(&place.key) else {
            return;
        };
        if let Some(sent) = running.sent.take() {
            self.awaited.remove(place.key, sent.due);
        }
        let due = self
            .unloaded
            .entry(deployment)
            .or_default()
            .due(running.input_tokens);
        self.due.add(due.after.as_secs_f64());
        self.reading.add(due.reading);
        self.reading_squared.add(due.reading * due.reading);
        #[expect(clippy::cast_precision_loss, reason = "an amount")]
        let tokens = self.tokens as f64;
        let sent = Sent {
            at: now,
            deployment,
            due: now + due.after,
            tokens,
            is_quiet: tokens < self.peak * QUIET,
        };
        running.sent = Some(sent);
        self.awaited.add(place.key, sent.due, running.input_tokens);
    }

    /// The first token of its answer has come.
    pub fn first_token(&mut self, now: Time, place: &Place) {
        let now = self.pass_time(now);
        let Some(running) = self.running.get_mut(&place.key) else {
            return;
        };
        let Some(sent) = running.sent.take() else { return };
        if !std::mem::replace(&mut running.is_read, true) {
            self.drain.add(running.input_tokens);
        }
        self.awaited.remove(place.key, sent.due);
        if now < sent.due {
            self.peak = self.peak.max(sent.tokens);
        }
        let unloaded = self.unloaded.entry(sent.deployment).or_default();
        unloaded.learn(running.input_tokens, now.since(sent.at), sent.is_quiet);
    }

    /// So many tokens of its answer have come so far. To be told a few times a second, so that the tokens in flight are known.
    pub fn wrote(&mut self, place: &Place, output_tokens: u64) {
        if let Some(running) = self.running.get_mut(&place.key) {
            let output_tokens = output_tokens.min(MOST_TOKENS);
            let more = output_tokens.saturating_sub(running.written);
            self.tokens += more;
            self.drain.add(2 * more);
            running.written += more;
        }
    }

    /// A deployment has told how many requests wait in it, whosever they are. To be told about once a second: what is older than
    /// two is not believed any more.
    pub fn reported(&mut self, now: Time, deployment: u32, waiting: usize) {
        let now = self.pass_time(now);
        self.reported.insert(deployment, (now, waiting));
    }

    /// The request has ended, and was served so much: nothing, if it never ran.
    pub fn end(&mut self, now: Time, place: Place, input_tokens: u64, output_tokens: u64) {
        self.pass_time(now);
        let Some(running) = self.running.remove(&place.key) else {
            return;
        };
        if let Some(sent) = running.sent {
            self.awaited.remove(place.key, sent.due);
        }
        self.of_batches -= usize::from(running.class == Class::Batch);
        self.charged -= running.charge;
        self.tokens -= running.input_tokens + running.written;
        let served = charge(input_tokens, output_tokens);
        let told = if running.is_read { running.input_tokens } else { 0 };
        self.drain.add(served.saturating_sub(told + 2 * running.written));
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
            limit: self.law.requests(),
            in_flight: self.running.len(),
            waiting: self.awaited.late(),
            queued: self.queue.len(),
            per_second: self.drain.per_second(),
        }
    }

    /// Which callers have requests in the queue, and how many.
    pub fn queued_by_caller(&self) -> impl Iterator<Item = (u32, usize)> {
        self.queue.by_caller()
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
}
