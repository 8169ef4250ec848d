use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ReplaySetup;
use super::claim::Digest;
use super::memory::{Full, Memory, Share};
use super::recording::{CannotJoin, Listener, Recording};
use crate::metrics::ReplayMetrics;

/// Which work and which answer belongs to whose key.
///
/// An answer that goes before its time leaves a tombstone until then: a request that comes again is told that its answer is
/// gone, and is not generated a second time. Only where there are more tombstones than [`MOST_TOMBSTONES`] the oldest of them
/// go, and with them that promise.
#[derive(Debug)]
pub(super) struct Table {
    setup: ReplaySetup,
    memory: Arc<Memory>,
    /// One for each caller that has ever sent a key, which are as many as are configured.
    shares: BTreeMap<&'static str, Arc<Share>>,
    metrics: ReplayMetrics,
    entries: BTreeMap<Arc<Name>, Entry>,
    /// The answers that can be had again.
    kept: Ages,
    tombstones: Ages,
    next_number: u64,
}

/// What a key is the key of. In this order all paths of a key are neighbours.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    caller: &'static str,
    key: Box<str>,
    pub(super) path: Box<str>,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Arc<Recording>),
    Kept(Arc<Recording>, Age),
    Tombstone(Age),
    /// Nothing of it has come yet, and what comes of it is not wanted any more. On no path, because nobody knows on which.
    CancelledAhead(Age),
}

/// Until when something is known, and a number that makes it unique.
type Age = (Instant, u64);

/// Names by age, so that the oldest can go.
#[derive(Debug)]
struct Ages {
    most: usize,
    most_of_one_caller: usize,
    names: BTreeMap<Age, Arc<Name>>,
    by_caller: BTreeMap<&'static str, BTreeSet<Age>>,
}

/// What there is for a request.
#[derive(Debug)]
pub(super) enum Found {
    /// It is the first one: its work has to be done.
    Nothing {
        work: Arc<Recording>,
        listener: Listener,
    },
    /// Its work is running.
    Running(Listener),
    /// Its work has ended.
    Stored(Listener),
    /// Its caller cancelled it before it came.
    Cancelled,
    /// Another request with its key.
    OtherRequest,
    /// It was answered, or is being answered, but the answer is not there from its beginning.
    NotKept,
}

const NO_PATH: &str = "";

/// About 300 bytes each, with the longest keys about 600.
const MOST_TOMBSTONES: usize = 50_000;
const MOST_TOMBSTONES_OF_ONE: usize = 10_000;

impl Name {
    pub(super) fn new(caller: &'static str, path: &str, key: &str) -> Self {
        Self {
            caller,
            key: key.into(),
            path: path.into(),
        }
    }

    fn on_no_path(&self) -> Self {
        Self::new(self.caller, NO_PATH, &self.key)
    }
}

impl Table {
    pub(super) fn new(setup: ReplaySetup, memory: Arc<Memory>, metrics: ReplayMetrics) -> Self {
        Self {
            setup,
            memory,
            shares: BTreeMap::new(),
            metrics,
            entries: BTreeMap::new(),
            kept: Ages::new(setup.answers.get(), setup.answers_per_caller.get()),
            tombstones: Ages::new(MOST_TOMBSTONES, MOST_TOMBSTONES_OF_ONE),
            next_number: 0,
        }
    }

    /// What there is for this request. If nothing, it is running from now on, and of requests that come at the same time only
    /// one finds nothing. `keep` is how long its work goes on without it.
    pub(super) fn find(&mut self, now: Instant, name: &Arc<Name>, digest: Digest, keep: Duration) -> Found {
        self.forget_old(now);
        if self.entries.contains_key(&name.on_no_path()) {
            return Found::Cancelled;
        }
        if let Some(entry) = self.entries.get(name)
            && let Some(found) = entry.find(digest, keep)
        {
            return found;
        }
        let share = self.shares.entry(name.caller);
        let share = share.or_insert_with(|| Arc::new(Share::new(Arc::clone(&self.memory))));
        let (work, listener) = Recording::begin_with(Arc::clone(share), keep);
        let entry = Entry {
            digest,
            state: State::Running(Arc::clone(&work)),
        };
        // What this may replace is work that has been given up and not ended yet; it is known by its recording.
        self.entries.insert(Arc::clone(name), entry);
        Found::Nothing { work, listener }
    }

    /// The work has led to nothing that could be told again.
    pub(super) fn free(&mut self, name: &Name, work: &Arc<Recording>) {
        if self.is_running(name, work) {
            self.entries.remove(name);
        }
    }

    /// The work has ended well: its answer can be had again for a while. Gives what had to go for it.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        name: &Arc<Name>,
        work: &Arc<Recording>,
    ) -> Vec<Arc<Recording>> {
        if !self.is_running(name, work) {
            return Vec::new();
        }
        if self.setup.keep.is_zero() {
            self.entries.remove(name);
            return Vec::new();
        }
        let age = (now + self.setup.keep, self.next_number);
        self.next_number += 1;
        if !work.is_joinable() {
            self.bury(name, age);
            return Vec::new();
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.state = State::Kept(Arc::clone(work), age);
        }
        self.kept.insert(age, name);
        let mut dropped = Vec::new();
        while let Some(age) = self.kept.surplus(name.caller) {
            dropped.extend(self.drop_answer(age));
        }
        dropped
    }

    /// Takes out the oldest answers that nobody is hearing, of those that have to go for this request, until so many bytes are
    /// free or there are none. They are freed when what is returned is dropped.
    pub(super) fn make_room(&mut self, full: Full, name: &Name, bytes: usize) -> Vec<Arc<Recording>> {
        let mut free = 0;
        let mut ages = Vec::new();
        let own = self.kept.by_caller.get(&name.caller);
        let candidates: Box<dyn Iterator<Item = &Age>> = match full {
            Full::Share => Box::new(own.into_iter().flatten()),
            Full::Memory => Box::new(self.kept.names.keys()),
        };
        for age in candidates {
            if free >= bytes {
                break;
            }
            if let Some(name) = self.kept.names.get(age)
                && let Some(Entry {
                    state: State::Kept(answer, _),
                    ..
                }) = self.entries.get(name)
                && !answer.is_heard()
            {
                free += answer.bytes();
                ages.push(*age);
            }
        }
        ages.into_iter().filter_map(|age| self.drop_answer(age)).collect()
    }

    /// Cancels what runs with this key and forgets what is stored, on all paths. Says whether something was running; `None` if
    /// nothing was known.
    pub(super) fn forget(&mut self, now: Instant, caller: &'static str, key: &str) -> Option<bool> {
        self.forget_old(now);
        let first = Name::new(caller, NO_PATH, key);
        let names = self
            .entries
            .range::<Name, _>((Bound::Included(&first), Bound::Unbounded))
            .map(|(name, _)| name)
            .take_while(|name| name.caller == first.caller && name.key == first.key);
        let names: Vec<_> = names.cloned().collect();
        let mut was_running = None;
        for name in names {
            let cancelled = match self.entries.remove(&name).map(|entry| entry.state) {
                Some(State::Running(work)) => work.cancel(),
                Some(State::Kept(_, age)) => {
                    self.kept.take(age);
                    false
                }
                Some(State::Tombstone(age)) => {
                    self.tombstones.take(age);
                    false
                }
                Some(State::CancelledAhead(age)) => {
                    self.tombstones.take(age);
                    continue;
                }
                None => false,
            };
            was_running = Some(was_running.unwrap_or(false) | cancelled);
        }
        was_running
    }

    /// Refuses what comes with this key within so long.
    pub(super) fn cancel_ahead(&mut self, now: Instant, caller: &'static str, key: &str, ahead: Duration) {
        let name = Arc::new(Name::new(caller, NO_PATH, key));
        let age = (now + ahead, self.next_number);
        self.next_number += 1;
        let entry = Entry {
            digest: Digest::default(),
            state: State::CancelledAhead(age),
        };
        self.entries.insert(Arc::clone(&name), entry);
        self.remember(&name, age);
    }

    fn is_running(&self, name: &Name, work: &Arc<Recording>) -> bool {
        let state = self.entries.get(name).map(|entry| &entry.state);
        matches!(state, Some(State::Running(running)) if Arc::ptr_eq(running, work))
    }

    /// Forgets that whose time is over.
    fn forget_old(&mut self, now: Instant) {
        for ages in [&mut self.kept, &mut self.tombstones] {
            while let Some(name) = ages.pop_until(now) {
                self.entries.remove(&name);
            }
        }
    }

    /// Puts a tombstone in the place of an answer.
    fn drop_answer(&mut self, age: Age) -> Option<Arc<Recording>> {
        let name = self.kept.take(age)?;
        let entry = self.entries.get(&name)?;
        let State::Kept(answer, _) = &entry.state else {
            return None;
        };
        let answer = Arc::clone(answer);
        self.metrics.dropped_answers.inc();
        self.bury(&name, age);
        Some(answer)
    }

    fn bury(&mut self, name: &Arc<Name>, age: Age) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.state = State::Tombstone(age);
        }
        self.remember(name, age);
    }

    /// That there is no answer any more, or none wanted.
    fn remember(&mut self, name: &Arc<Name>, age: Age) {
        self.tombstones.insert(age, name);
        while let Some(age) = self.tombstones.surplus(name.caller) {
            if let Some(name) = self.tombstones.take(age) {
                self.entries.remove(&name);
                self.metrics.dropped_tombstones.inc();
            }
        }
    }
}

impl Found {
    /// The word for a repeated request in metrics.
    pub(super) fn outcome(&self) -> Option<&'static str> {
        match self {
            Self::Nothing { .. } => None,
            Self::Running(_) => Some("attached"),
            Self::Stored(_) => Some("replayed"),
            Self::Cancelled => Some("cancelled"),
            Self::OtherRequest => Some("key_reused"),
            Self::NotKept => Some("answer_not_kept"),
        }
    }
}

impl Entry {
    /// `None`: its work is given up, and as good as gone.
    fn find(&self, digest: Digest, keep: Duration) -> Option<Found> {
        let (recording, found): (_, fn(Listener) -> Found) = match &self.state {
            State::Running(work) => (work, Found::Running),
            State::Kept(answer, _) => (answer, Found::Stored),
            State::Tombstone(_) if digest != self.digest => return Some(Found::OtherRequest),
            State::Tombstone(_) => return Some(Found::NotKept),
            State::CancelledAhead(_) => return Some(Found::Cancelled),
        };
        if digest != self.digest {
            return (!recording.is_given_up()).then_some(Found::OtherRequest);
        }
        match recording.join(keep) {
            Ok(listener) => Some(found(listener)),
            Err(CannotJoin::Overgrown) => Some(Found::NotKept),
            Err(CannotJoin::GivenUp) => None,
        }
    }
}

impl Ages {
    fn new(most: usize, most_of_one_caller: usize) -> Self {
        Self {
            most,
            most_of_one_caller,
            names: BTreeMap::new(),
            by_caller: BTreeMap::new(),
        }
    }

    fn insert(&mut self, age: Age, name: &Arc<Name>) {
        self.names.insert(age, Arc::clone(name));
        self.by_caller.entry(name.caller).or_default().insert(age);
    }

    fn take(&mut self, age: Age) -> Option<Arc<Name>> {
        let name = self.names.remove(&age)?;
        if let Some(own) = self.by_caller.get_mut(&name.caller) {
            own.remove(&age);
            if own.is_empty() {
                self.by_caller.remove(&name.caller);
            }
        }
        Some(name)
    }

    /// The oldest one of the caller if it has too many, the oldest of all if there are too many.
    fn surplus(&self, caller: &'static str) -> Option<Age> {
        let own = self.by_caller.get(caller)?;
        if own.len() > self.most_of_one_caller {
            return own.first().copied();
        }
        let oldest = self.names.keys().next().copied();
        oldest.filter(|_| self.names.len() > self.most)
    }

    /// Takes the oldest one if its time is over.
    fn pop_until(&mut self, now: Instant) -> Option<Arc<Name>> {
        let (until, number) = *self.names.keys().next()?;
        if until > now {
            return None;
        }
        self.take((until, number))
    }
}

#[cfg(test)]
mod tests;
