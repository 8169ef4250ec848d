use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::bucket::{Bucket, NO_OPEN};
use crate::open::Open;
use crate::policy::Policy;
use crate::{Cost, Counted, Level, NeverFits, NotNow, Quota, Refusal, Refused, Subject, Time, Unit};

/// Decides about requests under a set of policies.
///
/// The keys of its tables are ids that its owner gave out, so the hash needs no protection against chosen keys, and their
/// number is bounded by what was configured.
#[derive(Debug)]
pub struct Limiter {
    policies: Vec<PolicyState>,
    opens: Opens,
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
    /// In the order of the policy's quotas.
    tables: Vec<Table>,
    /// Open reservations by partition key; only kept under a `concurrency`.
    running: HashMap<u64, u32, FixedState>,
    /// Average time that a request runs, from which the wait for a place is guessed.
    mean_run: Duration,
}

/// The buckets of one quota by partition key. One that is not there is full.
#[derive(Debug, Default)]
struct Table(HashMap<u64, Bucket, FixedState>);

/// Storage for the open reservations of all buckets that have some, reused so that a request allocates nothing.
#[derive(Debug, Default)]
struct Opens {
    slots: Vec<Open>,
    free: Vec<u32>,
}

/// What a wait for a running request to end is assumed to be while none has ended yet.
const FIRST_GUESS: Duration = Duration::from_secs(1);

impl Limiter {
    /// A limiter under these policies, with every bucket full.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self {
            policies: policies.into_iter().map(PolicyState::new).collect(),
            opens: Opens::default(),
            latest: Time::ZERO,
            next_id: 0,
        }
    }

    /// Admits the request under every policy that applies to it and reserves its cost, or changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NeverFits`] if the cost is above a burst; else [`Refusal::NotNow`] naming every quota that refused.
    pub fn admit(&mut self, now: Time, subject: Subject, cost: Cost) -> Result<Reservation, Refusal> {
        let now = self.advance(now);
        let mut refused = Vec::new();
        for state in self
            .policies
            .iter()
            .filter(|state| state.policy.applies_to(subject))
        {
            state.check(now, subject, cost, &mut refused)?;
        }
        if !refused.is_empty() {
            return Err(Refusal::NotNow(NotNow::new(refused)));
        }
        let id = self.next_id;
        self.next_id += 1;
        for state in self
            .policies
            .iter_mut()
            .filter(|state| state.policy.applies_to(subject))
        {
            state.reserve(now, subject, cost, id, &mut self.opens);
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
        let subject = reservation.subject;
        for state in self
            .policies
            .iter_mut()
            .filter(|state| state.policy.applies_to(subject))
        {
            state.settle(now, &reservation, usage, &mut self.opens);
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

    fn advance(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }
}

// === impl PolicyState ===

impl PolicyState {
    fn new(policy: Policy) -> Self {
        Self {
            tables: policy.quotas.iter().map(|_| Table::default()).collect(),
            running: HashMap::default(),
            mean_run: FIRST_GUESS,
            policy,
        }
    }

    fn quotas(&self) -> impl Iterator<Item = (Unit, &Quota, &Table)> {
        self.policy
            .quotas
            .iter()
            .zip(&self.tables)
            .map(|((unit, quota), table)| (*unit, quota, table))
    }

    /// Appends every quota that refuses to `refused`.
    fn check(
        &self,
        now: Time,
        subject: Subject,
        cost: Cost,
        refused: &mut Vec<Refused>,
    ) -> Result<(), Refusal> {
        let key = self.policy.partition_key(subject);
        for (unit, quota, table) in self.quotas() {
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
            let bucket = table.bucket(key);
            let ticks = scale.ticks_at(now);
            if let Err(admitted_at) = bucket.check(ticks, scale.ticks_of(asked), quota.burst_ticks()) {
                refused.push(Refused {
                    policy: Arc::clone(&self.policy.name),
                    counted: Counted::PerWindow {
                        unit,
                        window: quota.window(),
                    },
                    limit: quota.limit(),
                    asked,
                    remaining: bucket.remaining(quota, ticks),
                    wait: scale.wait_until(admitted_at, now),
                });
            }
        }
        if let Some(maximum) = self.policy.concurrency
            && self.running(key) >= maximum.get()
        {
            refused.push(Refused {
                policy: Arc::clone(&self.policy.name),
                counted: Counted::Concurrency,
                limit: maximum.get().into(),
                asked: 1,
                remaining: 0,
                wait: self.mean_run / maximum.get(),
            });
        }
        Ok(())
    }

    fn reserve(&mut self, now: Time, subject: Subject, cost: Cost, id: u64, opens: &mut Opens) {
        let key = self.policy.partition_key(subject);
        for ((unit, quota), table) in self.policy.quotas.iter().zip(&mut self.tables) {
            let scale = quota.scale();
            let ticks = scale.ticks_at(now);
            let bucket = table.0.entry(key).or_insert(Bucket::FULL);
            let open = opens.of(bucket);
            open.observe(bucket.level(ticks));
            bucket.charge(ticks, scale.ticks_of(unit.of(cost)));
            open.add(id, bucket.level(ticks));
        }
        if self.policy.concurrency.is_some() {
            *self.running.entry(key).or_insert(0) += 1;
        }
    }

    fn settle(&mut self, now: Time, reservation: &Reservation, usage: Cost, opens: &mut Opens) {
        let key = self.policy.partition_key(reservation.subject);
        for ((unit, quota), table) in self.policy.quotas.iter().zip(&mut self.tables) {
            let scale = quota.scale();
            let ticks = scale.ticks_at(now);
            let reserved = scale.ticks_of(unit.of(reservation.cost));
            let used = scale.ticks_of(unit.of(usage));
            let bucket = table.0.entry(key).or_insert(Bucket::FULL);
            let open = opens.of(bucket);
            open.observe(bucket.level(ticks));
            let refund = open.settle(reservation.id, reserved.saturating_sub(used));
            bucket.refund(refund);
            bucket.charge(ticks, used.saturating_sub(reserved));
            opens.release_if_empty(bucket);
        }
        if self.policy.concurrency.is_some() {
            if let Some(running) = self.running.get_mut(&key) {
                *running -= 1;
            }
            self.mean_run = (self.mean_run * 7 + now.since(reservation.admitted)) / 8;
        }
    }

    fn levels(&self, now: Time, subject: Subject) -> impl Iterator<Item = Level> {
        let key = self.policy.partition_key(subject);
        let quotas = self.quotas().map(move |(unit, quota, table)| {
            let bucket = table.bucket(key);
            Level {
                policy: Arc::clone(&self.policy.name),
                counted: Counted::PerWindow {
                    unit,
                    window: quota.window(),
                },
                limit: quota.limit(),
                remaining: bucket.remaining(quota, quota.scale().ticks_at(now)),
                full_in: quota.scale().wait_until(bucket.tat, now),
            }
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

    fn running(&self, key: u64) -> u32 {
        self.running.get(&key).copied().unwrap_or(0)
    }
}

// === impl Table, Bucket, Opens, NotNow ===

impl Table {
    fn bucket(&self, key: u64) -> Bucket {
        self.0.get(&key).copied().unwrap_or(Bucket::FULL)
    }
}

impl Bucket {
    /// Whole units that could be taken at `now` ticks.
    fn remaining(&self, quota: &Quota, now: u64) -> u64 {
        quota.burst_ticks().saturating_sub(self.level(now)) / quota.scale().per_unit
    }
}

impl Opens {
    /// The open reservations of a bucket.
    fn of(&mut self, bucket: &mut Bucket) -> &mut Open {
        if bucket.open == NO_OPEN {
            bucket.open = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Open::default());
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 requests run at once")
            });
        }
        &mut self.slots[bucket.open as usize]
    }

    fn release_if_empty(&mut self, bucket: &mut Bucket) {
        if self.slots[bucket.open as usize].is_empty() {
            self.free.push(bucket.open);
            bucket.open = NO_OPEN;
        }
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
