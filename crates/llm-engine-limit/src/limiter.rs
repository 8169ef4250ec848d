use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::bucket::Bucket;
use crate::buckets::Buckets;
use crate::open::Open;
use crate::policy::{Match, Policy};
use crate::{Cost, Counted, Level, NeverFits, NotNow, Quota, Refusal, Refused, Subject, Time, Unit};

/// Decides about requests under a set of policies.
///
/// The keys of its tables are ids that its owner gave out, so the hash needs no protection against chosen keys, and their
/// number is bounded by what was configured.
#[derive(Debug)]
pub struct Limiter {
    policies: Vec<PolicyState>,
    /// The latest time seen: a clock that goes back is not followed.
    latest: Time,
    next_id: u64,
}

/// Proof that a request was admitted, to be handed back to [`Limiter::settle`] exactly once, also if nothing came of the
/// request. While it is open its whole cost counts as used, and it runs as far as `concurrency` is concerned.
#[derive(Debug)]
#[must_use = "a reservation counts against the quotas until it is settled"]
pub struct Reservation {
    id: u64,
    subject: Subject,
    cost: Cost,
    admitted: Time,
}

#[derive(Debug)]
struct PolicyState {
    policy: Policy,
    /// Matches everything.
    for_all: bool,
    buckets: Buckets,
    opens: Opens,
    /// Open reservations by partition key; only kept under a `concurrency`.
    running: HashMap<u64, u32, FixedState>,
    /// Average time that a request runs, from which the wait for a place is guessed.
    mean_run: Duration,
}

/// The open reservations of all buckets of a policy that have several, by row and quota. A bucket that is marked as open
/// and is not here has one open reservation, and nothing has happened since that was made: its floor is the level.
#[derive(Debug, Default)]
struct Opens {
    by_bucket: HashMap<(u32, usize), Open, FixedState>,
    /// Kept so that a request allocates nothing.
    spare: Vec<Open>,
}

/// What a wait for a running request to end is assumed to be while none has ended yet.
const FIRST_GUESS: Duration = Duration::from_secs(1);

impl Limiter {
    /// A limiter under these policies, with every bucket full.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self {
            policies: policies.into_iter().map(PolicyState::new).collect(),
            latest: Time::ZERO,
            next_id: 0,
        }
    }

    /// Admits the request under every policy that applies to it and reserves its cost, or changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NeverFits`] if the cost is above a burst; else [`Refusal::NotNow`] naming every quota that refused.
    pub fn admit(&mut self, now: Time, subject: Subject, cost: Cost) -> Result<Reservation, Refusal> {
        let given = now;
        let now = self.advance(now);
        for state in &self.policies {
            if state.applies_to(subject) && !state.fits(now, subject, cost) {
                return Err(self.refusal(given, now, subject, cost));
            }
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        for state in &mut self.policies {
            if state.applies_to(subject) {
                state.reserve(now, subject, cost, id);
            }
        }
        Ok(Reservation {
            id,
            subject,
            cost,
            admitted: now,
        })
    }

    /// Ends a reservation: what was reserved and not used is given back as far as that mints nothing; what was used
    /// beyond the reservation is charged, into debt if need be. [`Cost::NOTHING`] releases a request on which no model
    /// has worked.
    pub fn settle(&mut self, now: Time, reservation: Reservation, usage: Cost) {
        let now = self.advance(now);
        for state in &mut self.policies {
            if state.applies_to(reservation.subject) {
                state.settle(now, &reservation, usage);
            }
        }
    }

    /// How every quota that applies to the subject stands.
    #[must_use]
    pub fn levels(&self, now: Time, subject: Subject) -> Vec<Level> {
        let now = self.latest.max(now);
        let applying = self
            .policies
            .iter()
            .filter(|state| state.policy.applies_to(subject));
        applying.flat_map(|state| state.levels(now, subject)).collect()
    }

    /// Why the request does not fit.
    #[cold]
    fn refusal(&self, given: Time, now: Time, subject: Subject, cost: Cost) -> Refusal {
        let mut refused = Vec::new();
        for state in self
            .policies
            .iter()
            .filter(|state| state.policy.applies_to(subject))
        {
            if let Err(never_fits) = state.check(given, now, subject, cost, &mut refused) {
                return never_fits;
            }
        }
        Refusal::NotNow(NotNow::new(refused))
    }

    fn advance(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }
}

// === impl PolicyState ===

impl PolicyState {
    fn new(policy: Policy) -> Self {
        Self {
            for_all: policy.matches == Match::default(),
            buckets: Buckets::new(&policy),
            opens: Opens::default(),
            running: HashMap::default(),
            mean_run: FIRST_GUESS,
            policy,
        }
    }

    #[inline]
    fn applies_to(&self, subject: Subject) -> bool {
        self.for_all || self.policy.applies_to(subject)
    }

    /// Each quota with the subject's bucket.
    fn quotas(&self, subject: Subject) -> impl Iterator<Item = (Unit, &Quota, Bucket)> {
        let row = self
            .buckets
            .row(&self.policy, subject)
            .and_then(|row| self.buckets.get(row));
        let quotas = self.policy.quotas.iter().enumerate();
        quotas.map(move |(index, (unit, quota))| (*unit, quota, row.map_or(Bucket::FULL, |row| row[index])))
    }

    #[inline]
    fn fits(&self, now: Time, subject: Subject, cost: Cost) -> bool {
        // A key that was never used has full buckets.
        let row = self
            .buckets
            .row(&self.policy, subject)
            .and_then(|row| self.buckets.get(row))
            .unwrap_or(&[]);
        for (index, (unit, quota)) in self.policy.quotas.iter().enumerate() {
            let asked = unit.of(cost);
            if asked > quota.burst() {
                return false;
            }
            let scale = quota.scale();
            let level = row
                .get(index)
                .map_or(0, |bucket| bucket.level(scale.ticks_at(now)));
            // Neither overflows: a debt has 63 bits, a burst 62.
            if asked > 0
                && level.wrapping_add(asked.wrapping_mul(scale.per_unit))
                    > quota.burst().wrapping_mul(scale.per_unit)
            {
                return false;
            }
        }
        let is_full = |maximum: NonZeroU32| self.running(self.policy.partition_key(subject)) >= maximum.get();
        !self.policy.concurrency.is_some_and(is_full)
    }

    /// Appends every quota that refuses to `refused`.
    fn check(
        &self,
        given: Time,
        now: Time,
        subject: Subject,
        cost: Cost,
        refused: &mut Vec<Refused>,
    ) -> Result<(), Refusal> {
        for (unit, quota, bucket) in self.quotas(subject) {
            let asked = unit.of(cost);
            if asked > quota.burst() {
                return Err(Refusal::NeverFits(NeverFits {
                    policy: Arc::clone(&self.policy.name),
                    unit,
                    asked,
                    burst: quota.burst(),
                }));
            }
            let scale = quota.scale();
            let ticks = scale.ticks_at(now);
            let full_again = bucket.tat().max(ticks) + scale.ticks_of(asked);
            if asked > 0 && full_again > ticks + quota.burst_ticks() {
                refused.push(Refused {
                    policy: Arc::clone(&self.policy.name),
                    counted: Counted::PerWindow {
                        unit,
                        window: quota.window(),
                    },
                    limit: quota.limit(),
                    asked,
                    remaining: bucket.remaining(quota, ticks),
                    wait: scale.wait_until(full_again - quota.burst_ticks(), given),
                });
            }
        }
        if let Some(maximum) = self.policy.concurrency
            && self.running(self.policy.partition_key(subject)) >= maximum.get()
        {
            refused.push(Refused {
                policy: Arc::clone(&self.policy.name),
                counted: Counted::Concurrency,
                limit: maximum.get().into(),
                asked: 1,
                remaining: 0,
                wait: (self.mean_run / maximum.get()).max(Duration::from_millis(1)),
            });
        }
        Ok(())
    }

    #[inline]
    fn reserve(&mut self, now: Time, subject: Subject, cost: Cost, id: u64) {
        let row = self.buckets.row_or_new(&self.policy, subject);
        let quotas = self
            .policy
            .quotas
            .iter()
            .zip(self.buckets.get_mut(row))
            .enumerate();
        for (index, ((unit, quota), bucket)) in quotas {
            let scale = quota.scale();
            let ticks = scale.ticks_at(now);
            let level = bucket.level(ticks);
            let after = level + unit.of(cost) * scale.per_unit;
            if bucket.is_open() {
                self.opens.add(row, index, id, level, after);
            }
            bucket.open(ticks + after);
        }
        if self.policy.concurrency.is_some() {
            self.start_running(subject);
        }
    }

    #[inline(never)]
    fn start_running(&mut self, subject: Subject) {
        let key = self.policy.partition_key(subject);
        *self.running.entry(key).or_insert(0) += 1;
    }

    #[inline(never)]
    fn end_running(&mut self, now: Time, reservation: &Reservation) {
        let key = self.policy.partition_key(reservation.subject);
        if let Some(running) = self.running.get_mut(&key) {
            *running -= 1;
        }
        self.mean_run = (self.mean_run * 7 + now.since(reservation.admitted)) / 8;
    }

    #[inline]
    fn settle(&mut self, now: Time, reservation: &Reservation, usage: Cost) {
        let row = self.buckets.row_or_new(&self.policy, reservation.subject);
        let quotas = self
            .policy
            .quotas
            .iter()
            .zip(self.buckets.get_mut(row))
            .enumerate();
        for (index, ((unit, quota), bucket)) in quotas {
            let (reserved, used) = (unit.of(reservation.cost), unit.of(usage));
            if reserved == used && self.opens.by_bucket.is_empty() {
                bucket.set_open(false);
                continue;
            }
            let scale = quota.scale();
            let ticks = scale.ticks_at(now);
            let reserved = reserved * scale.per_unit;
            let used = scale.ticks_of(used);
            let level = bucket.level(ticks);
            let saved = reserved.saturating_sub(used);
            let (refund, is_last) = self.opens.settle(row, index, reservation.id, level, saved);
            if is_last {
                bucket.set_open(false);
            }
            bucket.refund(refund);
            bucket.charge(ticks, used.saturating_sub(reserved));
        }
        if self.policy.concurrency.is_some() {
            self.end_running(now, reservation);
        }
    }

    fn levels(&self, now: Time, subject: Subject) -> impl Iterator<Item = Level> {
        let key = self.policy.partition_key(subject);
        let quotas = self.quotas(subject).map(move |(unit, quota, bucket)| Level {
            policy: Arc::clone(&self.policy.name),
            counted: Counted::PerWindow {
                unit,
                window: quota.window(),
            },
            limit: quota.limit(),
            remaining: bucket.remaining(quota, quota.scale().ticks_at(now)),
            full_in: quota.scale().wait_until(bucket.tat(), now),
        });
        let concurrency = self.policy.concurrency.map(|maximum| Level {
            policy: Arc::clone(&self.policy.name),
            counted: Counted::Concurrency,
            limit: maximum.get().into(),
            remaining: maximum.get().saturating_sub(self.running(key)).into(),
            full_in: Duration::ZERO,
        });
        quotas.chain(concurrency)
    }

    #[inline(never)]
    fn running(&self, key: u64) -> u32 {
        self.running.get(&key).copied().unwrap_or(0)
    }
}

// === impl Table, Bucket, Opens, NotNow ===

impl Bucket {
    /// Whole units that could be taken at `now` ticks.
    fn remaining(&self, quota: &Quota, now: u64) -> u64 {
        quota.burst_ticks().saturating_sub(self.level(now)) / quota.scale().per_unit
    }
}

impl Opens {
    /// One more on a bucket that has some, whose level changes.
    #[inline(never)]
    fn add(&mut self, row: u32, quota: usize, id: u64, before: u64, after: u64) {
        let open = self.by_bucket.entry((row, quota)).or_insert_with(|| {
            let mut open = self.spare.pop().unwrap_or_default();
            open.start(before);
            open
        });
        open.observe(before);
        open.add(id, after);
    }

    /// How much may be refunded, and whether it was the last one.
    #[inline(never)]
    fn settle(&mut self, row: u32, quota: usize, id: u64, level: u64, saved: u64) -> (u64, bool) {
        let Some(open) = self.by_bucket.get_mut(&(row, quota)) else {
            return (saved.min(level), true);
        };
        open.observe(level);
        let refund = open.settle(id, saved);
        let is_last = open.is_empty();
        if is_last {
            self.spare.extend(self.by_bucket.remove(&(row, quota)));
        }
        (refund, is_last)
    }
}

impl NotNow {
    fn new(refused: Vec<Refused>) -> Self {
        Self {
            wait: refused
                .iter()
                .map(|refused| refused.wait)
                .max()
                .unwrap_or_default(),
            exact: refused
                .iter()
                .all(|refused| refused.counted != Counted::Concurrency),
            refused,
        }
    }
}
