mod report;

use crate::buckets::Buckets;
use crate::cost::Amounts;
use crate::meter::Meter;
use crate::opens::Opens;
use crate::partition::Partition;
use crate::running::Running;
use crate::{Cost, Match, Policy, Reservation, Subject, Time};

/// Policies that stand side by side, apply to the same requests, and are counted per the same: all their buckets for one
/// partition key are one row.
#[derive(Debug)]
pub(crate) struct PolicyGroup {
    matches: Match,
    for_all: bool,
    /// The quotas of all its policies, in the order of the buckets of a row.
    meters: Box<[Meter]>,
    buckets: Buckets,
    opens: Opens,
    /// Under the smallest maximum of its policies.
    running: Running,
    policies: Vec<Policy>,
}

impl PolicyGroup {
    /// The policies in as few groups as their order allows.
    pub(crate) fn all_of(policies: Vec<Policy>) -> Vec<Self> {
        let together =
            |a: &Policy, b: &Policy| a.matches == b.matches && Partition::of(a.per) == Partition::of(b.per);
        policies.chunk_by(together).map(Self::new).collect()
    }

    fn new(policies: &[Policy]) -> Self {
        let meters: Box<[_]> = policies
            .iter()
            .flat_map(|policy| &policy.quotas)
            .enumerate()
            .map(|(place, (unit, quota))| Meter::new(place, *unit, quota))
            .collect();
        let matches = policies[0].matches;
        let partition = Partition::of(policies[0].per);
        let maximum = policies.iter().filter_map(|policy| policy.concurrency).min();
        Self {
            matches,
            for_all: matches == Match::default(),
            buckets: Buckets::new(partition, meters.len()),
            meters,
            opens: Opens::default(),
            running: Running::new(maximum),
            policies: policies.to_vec(),
        }
    }

    #[inline]
    pub(crate) fn applies_to(&self, subject: Subject) -> bool {
        self.for_all || self.matches.includes(subject)
    }

    /// Reserves all of the cost, or nothing and returns false.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, now: Time, subject: Subject, cost: Cost, id: u64) -> bool {
        if self.running.is_limited() && !self.running.start(self.buckets.key(subject)) {
            return false;
        }
        let amounts = Amounts::from(cost);
        let row = self.buckets.row(subject);
        for (meter, bucket) in self.meters.iter().zip(self.buckets.row_mut(row)) {
            let Some(step) = meter.step(*bucket, now, &amounts) else {
                let reserved = meter.place;
                self.correct(row, reserved, now, [cost, Cost::NOTHING], id);
                if self.running.is_limited() {
                    self.running.take_back(self.buckets.key(subject));
                }
                return false;
            };
            if bucket.is_open() {
                self.opens.add(row, meter.place, id, step.before, step.after);
            }
            // An instant and a burst on top of it fit 62 bits, an instant and a debt 63.
            bucket.open(step.now.wrapping_add(step.after));
        }
        true
    }

    /// Undoes a reservation that was made at this same instant: no level, now or later, shows that it was ever there.
    pub(crate) fn take_back(&mut self, reservation: &Reservation) {
        let Reservation {
            id,
            subject,
            cost,
            admitted,
        } = *reservation;
        let row = self.buckets.row(subject);
        self.correct(row, self.meters.len(), admitted, [cost, Cost::NOTHING], id);
        if self.running.is_limited() {
            self.running.take_back(self.buckets.key(subject));
        }
    }

    /// Replaces what was reserved by what was used.
    #[inline(always)]
    pub(crate) fn settle(&mut self, now: Time, reservation: &Reservation, usage: Cost) {
        let Reservation {
            id,
            subject,
            cost,
            admitted,
        } = *reservation;
        let row = self.buckets.row(subject);
        if cost == usage && self.opens.is_empty() {
            for bucket in self.buckets.row_mut(row) {
                bucket.close();
            }
        } else {
            self.correct(row, self.meters.len(), now, [cost, usage], id);
        }
        if self.running.is_limited() {
            self.running.end(self.buckets.key(subject), admitted, now);
        }
    }

    /// Replaces what was reserved on the first quotas of a row by what was used.
    #[inline(never)]
    fn correct(&mut self, row: u32, quotas: usize, now: Time, costs: [Cost; 2], id: u64) {
        let [reserved, used] = costs.map(Amounts::from);
        let meters = &self.meters[..quotas];
        for (meter, bucket) in meters.iter().zip(self.buckets.row_mut(row)) {
            let (reserved, used) = (meter.ticks_of(&reserved), meter.ticks_of(&used));
            let ticks = meter.ticks_at(now);
            let saved = reserved.saturating_sub(used);
            let (refund, is_last) = self
                .opens
                .settle(row, meter.place, id, bucket.level(ticks), saved);
            if is_last {
                bucket.close();
            }
            bucket.refund(refund);
            bucket.charge(ticks, used.saturating_sub(reserved));
        }
    }
}
