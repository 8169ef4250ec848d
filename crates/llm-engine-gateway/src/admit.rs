use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{Cost, Counts, Level, Limiter, LimiterOptions, Policy, Reservation, Subject, Time};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

use crate::arrival::{address_number, user_number};
use crate::explain::Decision;
use crate::hold::{Held, Holding};
use crate::journal::Journal;
use crate::names::Names;
use crate::policies::{Policies, name_all};
use crate::report::Record;
use crate::{Arrival, Caller, CallerSetup, JournalError, PolicySetup, Refusal, Route, SetupError};

/// The limiter with the clock and the lock that it does not have itself.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Held for a few table look-ups and never across an await. This mutex looks again a few times before it puts a thread to
    /// sleep, which two threads on one of the standard library's do all the time.
    state: Mutex<State>,
    epoch: Instant,
    wall_clock: fn() -> Timestamp,
    /// Opened when there is something to keep.
    journal: OnceLock<Journal>,
    journal_path: Option<PathBuf>,
    holding: Arc<Holding>,
    counts_input: AtomicBool,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    policies: Policies,
    names: Names,
}

/// Partition keys of which the levels are written down while requests wait: about 0.1 ms of work.
const SAVED_AT_ONCE: usize = 200;

/// Proof of admission. Dropped, it settles: before anything was counted all of it is given back, then what has been
/// counted so far is charged.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Limits>,
    /// `None` once it is settled.
    reservation: Option<Reservation>,
    counted: Cost,
}

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) subject: Subject,
    pub(crate) cost: Cost,
    pub(crate) arrival: &'a Arrival<'a>,
}

impl Limits {
    /// Limits as they were when they were last kept in the journal, if there is one.
    pub(crate) fn start(
        policies: Vec<PolicySetup>,
        names: Names,
        wall_clock: fn() -> Timestamp,
        journal_path: Option<PathBuf>,
    ) -> Result<Self, SetupError> {
        let state = State {
            limiter: Limiter::with_options(
                Vec::new(),
                LimiterOptions {
                    hash_seed: random_seed(),
                    ..LimiterOptions::default()
                },
            ),
            policies: Policies::default(),
            names,
        };
        let limits = Self {
            state: Mutex::new(state),
            epoch: Instant::now(),
            wall_clock,
            journal: OnceLock::new(),
            journal_path,
            holding: Arc::default(),
            counts_input: AtomicBool::new(false),
        };
        limits.set_policies(policies)?;
        Ok(limits)
    }

    /// How many requests are held now.
    pub(crate) fn held(&self) -> usize {
        self.holding.held()
    }

    /// How full the limiter is, and what became of its bookings.
    pub(crate) fn counts(&self) -> Counts {
        self.state().limiter.counts()
    }

    /// Whether any quota counts the tokens of prompts, so that it is worth asking for their number.
    pub(crate) fn counts_input(&self) -> bool {
        self.counts_input.load(Ordering::Relaxed)
    }

    /// Whether a request that names no maximum reserves only what answers usually need.
    pub(crate) fn learns_output(&self, subject: Subject) -> bool {
        self.state().policies.learn_output(subject)
    }

    /// The policies that are in force.
    pub(crate) fn policies(&self) -> Arc<[PolicySetup]> {
        Arc::clone(&self.state().policies.setups)
    }

    /// Admits the request, now or, where it may be held, at its booked time; or says why not and when.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        ask: Ask<'_>,
        record: &mut Record,
    ) -> Result<Permit, Refusal> {
        let begun = Instant::now();
        let mut held: Option<Held> = None;
        loop {
            let not_now = match self.decide(ask, record) {
                Ok(permit) => {
                    if let Some(held) = held {
                        held.ended();
                    }
                    return Ok(permit);
                }
                Err(refusal) => refusal,
            };
            let until = not_now.hold.and_then(|longest| {
                let until = Instant::now() + not_now.refusal.retry_after?;
                let is_in_time = ask.arrival.deadline.is_none_or(|deadline| until < deadline);
                (is_in_time && until <= begun + longest).then_some(until)
            });
            if held.is_none() && until.is_some() {
                held = self.hold(ask);
            }
            if let Some(held) = &mut held {
                held.is_booked = not_now.refusal.booked;
            }
            let (Some(until), Some(_)) = (until, &held) else {
                if let Some(held) = held {
                    held.ended();
                }
                record.refused(&not_now.refusal);
                return Err(not_now.refusal);
            };
            sleep_until(until).await;
            record.held(begun.elapsed());
        }
    }

    /// One decision, with what it takes to explain it.
    fn decide(self: &Arc<Self>, ask: Ask<'_>, record: &mut Record) -> Result<Permit, NotNow> {
        let Ask {
            subject,
            cost,
            arrival,
        } = ask;
        let mut state = self.state();
        state.limiter.prepare(&subject);
        let now = self.now();
        state.limiter.pass_time(now);
        let before = state.limiter.levels_for(now, subject, arrival.fingerprint);
        let decision = state
            .limiter
            .admit_or_book(now, subject, cost, arrival.fingerprint);
        match decision {
            Ok(reservation) => {
                let observed = if reservation.would_be_refused() {
                    state.limiter.observed(&reservation)
                } else {
                    Vec::new()
                };
                drop(state);
                let decision = Decision {
                    before,
                    refused: observed,
                    is_observed: true,
                };
                record.decided(cost, decision);
                Ok(Permit {
                    limits: Arc::clone(self),
                    reservation: Some(reservation),
                    counted: Cost::NOTHING,
                })
            }
            Err(refusal) => {
                let refused = refusal.refused();
                let hold = state.policies.hold(&refusal).max(arrival.wait);
                drop(state);
                let decision = Decision {
                    before,
                    refused,
                    is_observed: false,
                };
                record.decided(cost, decision);
                let refusal = Refusal::from(refusal);
                Err(NotNow {
                    hold: (!hold.is_zero() && refusal.retry_after.is_some()).then_some(hold),
                    refusal,
                })
            }
        }
    }

    /// Admits what nobody asks for again: no time is kept for it, and nobody is told how the limits stand.
    pub(crate) fn take(self: &Arc<Self>, cost: Cost) -> Result<Permit, Refusal> {
        let admitted = self.state().limiter.admit(self.now(), Subject::default(), cost);
        Ok(Permit {
            limits: Arc::clone(self),
            reservation: Some(admitted?),
            counted: Cost::NOTHING,
        })
    }

    fn hold(self: &Arc<Self>, ask: Ask<'_>) -> Option<Held> {
        let limits = Arc::clone(self);
        let (subject, fingerprint) = (ask.subject, ask.arrival.fingerprint);
        let give_up = move || {
            let now = limits.now();
            limits.state().limiter.cancel_booking(now, subject, fingerprint);
        };
        self.holding.enter(subject.caller, ask.arrival.bytes, give_up)
    }

    /// How every quota stands that can refuse the subject; those that only observe are not for its eyes.
    pub(crate) fn levels(&self, subject: Subject) -> Vec<Level> {
        let mut state = self.state();
        let now = self.now();
        state.limiter.pass_time(now);
        let mut levels = state.limiter.levels(now, subject);
        if state.policies.some_observe {
            levels.retain(|level| !state.policies.observes(level.policy));
        }
        levels
    }

    /// Puts other policies in force, for callers of whom the new ones get numbers. `make` is given these.
    pub(crate) fn reload<T>(
        &self,
        callers: Vec<CallerSetup>,
        policies: Vec<PolicySetup>,
        make: impl FnOnce(Vec<CallerSetup>, &Names) -> T,
    ) -> Result<T, SetupError> {
        let made = {
            let mut state = self.state();
            name_all(&mut state.names, &[], &callers);
            make(callers, &state.names)
        };
        self.set_policies(policies)?;
        Ok(made)
    }

    fn set_policies(&self, setups: Vec<PolicySetup>) -> Result<(), SetupError> {
        // All that can fail comes first, and what takes long is done without the lock.
        let policies = {
            let mut state = self.state();
            Policies::new(setups, &mut state.names, self.now(), (self.wall_clock)())?
        };
        let has_durable = policies.limits.iter().any(Policy::is_durable);
        let path = self.journal_path.as_ref();
        let path = path.filter(|_| has_durable && self.journal.get().is_none());
        let journal = path.map(|path| Journal::open(path)).transpose()?;

        let mut state = self.state();
        let kept = journal.as_ref();
        let wall = (self.wall_clock)();
        let kept = kept.map(|journal| journal.load(&state.names, &policies.limits, wall));
        let kept = kept.transpose()?.unwrap_or_default();
        let now = self.now();
        self.counts_input.store(policies.count_input(), Ordering::Relaxed);
        state.limiter.reload(now, &policies.limits);
        state.policies = policies;
        for (saved, at) in kept {
            let age = Duration::try_from(wall.duration_since(at)).unwrap_or_default();
            state.limiter.restore(now, &saved, age);
        }
        if let Some(journal) = journal {
            // Only one configuration is put in force at a time.
            let _ = self.journal.set(journal);
        }
        Ok(())
    }

    /// Takes the calendars from what the clock on the wall shows now: it may have been set.
    pub(crate) fn look_at_the_wall(&self) {
        let mut state = self.state();
        let now = self.now();
        for calendar in state.policies.calendars(now, (self.wall_clock)()) {
            state.limiter.follow(now, &calendar);
        }
    }

    /// How far the clock on the wall is ahead of the limiter's.
    pub(crate) fn wall_offset(&self) -> Duration {
        let wall = (self.wall_clock)().duration_since(Timestamp::UNIX_EPOCH);
        Duration::try_from(wall)
            .unwrap_or_default()
            .saturating_sub(self.epoch.elapsed())
    }

    /// Whether anything must be kept.
    pub(crate) fn has_journal(&self) -> bool {
        self.journal.get().is_some()
    }

    /// Writes what has changed into the journal. Blocks until it is on the disk.
    pub(crate) fn keep(&self) -> Result<(), JournalError> {
        let Some(journal) = self.journal.get() else {
            return Ok(());
        };
        let mut entries = Vec::new();
        let mut state = self.state();
        state.limiter.begin_saving();
        while let Some(saved) = state.limiter.save_next(self.now(), SAVED_AT_ONCE) {
            let at = (self.wall_clock)();
            entries.extend(journal.entries(&saved, &state.names, &state.policies.limits, at));
            // Whoever waits comes next, not this thread again.
            MutexGuard::unlock_fair(state);
            state = self.state();
        }
        let policies = Arc::clone(&state.policies.limits);
        drop(state);
        journal.store(&entries, &policies)
    }

    fn now(&self) -> Time {
        Time::after_epoch(self.epoch.elapsed())
    }

    /// A panic while it was locked would be a bug in the limiter's arithmetic; its state is consistent between steps, and
    /// going on limiting beats refusing everybody.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Not admitted now, and how long the request may be held.
struct NotNow {
    refusal: Refusal,
    hold: Option<Duration>,
}

/// A secret of this process, so that nobody can choose addresses whose hashes collide.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

impl Permit {
    /// Gives all of it back, because the request was refused after all, for a reason that has nothing to do with limits. If
    /// it had come at a time that was kept for it, one is kept for when it is told to come again.
    pub(crate) fn give_back(mut self, arrival: &Arrival<'_>, retry_after: Option<Duration>) {
        let after = retry_after.unwrap_or_default();
        if let Some(reservation) = self.reservation.take() {
            let mut state = self.limits.state();
            let now = self.limits.now();
            state
                .limiter
                .give_back(now, reservation, arrival.fingerprint, after);
        }
    }

    /// What is charged if nothing else becomes known.
    pub(crate) fn count(&mut self, usage: Cost) {
        self.counted = usage;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let mut state = self.limits.state();
            state.limiter.settle(self.limits.now(), reservation, self.counted);
        }
    }
}

pub(crate) fn subject(caller: &Caller, route: &Route, arrival: &Arrival<'_>) -> Subject {
    let user = arrival.user.filter(|_| caller.names_users);
    Subject {
        caller: caller.id,
        team: caller.team,
        model: route.id,
        route: arrival.route_number(),
        address: address_number(arrival.address),
        user: user.map(user_number).unwrap_or_default(),
    }
}
