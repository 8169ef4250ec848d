mod booking;
mod persistence;
mod report;

use std::collections::{HashMap, HashSet, hash_set};
use std::ops::Range;

use foldhash::fast::FixedState;

use crate::admitted::Admitted;
use crate::bucket::Bucket;
use crate::buckets::{Buckets, TableSize};
use crate::cost::Amounts;
use crate::index::OVERFLOW;
use crate::meter::{Meter, Step};
use crate::opens::Opens;
use crate::partition::Partition;
use crate::running::Running;
use crate::schedule::Schedule;
use crate::{Calendar, Cost, Match, Mode, Policy, Subject, Time};

pub(crate) use booking::Standing;
pub(crate) use report::{Question, Refusing};

/// Policies that stand side by side, apply to the same requests, and are counted per the same: all their buckets for one
/// partition key are one row.
#[derive(Debug)]
pub(crate) struct PolicyGroup {
    matches: Match,
    partition: Partition,
    for_all: bool,
    mode: Mode,
    /// The quotas of all its policies, in the order of the buckets of a row.
    meters: Box<[Meter]>,
    buckets: Buckets,
    opens: Opens,
    /// Under the smallest maximum of its policies.
    running: Running,
    policies: Vec<Policy>,
    /// By row.
    schedules: HashMap<u32, Schedule, FixedState>,
    /// Its bit in what is noted of a request.
    bit: u64,
    /// Reservations before this one know nothing of it.
    first_id: u64,
    /// Reservations before this one are not counted as running in it.
    running_from: u64,
    /// Whether how its buckets stand must outlive a restart, even if they are not in debt.
    is_durable: bool,
    /// Rows that have changed since they were last saved, if they must be.
    dirty: HashSet<u32, FixedState>,
    /// Those of them that are being saved.
    saving: hash_set::IntoIter<u32>,
}

impl PolicyGroup {
    /// The policies in as few groups as their order allows.
    pub(crate) fn chunks(policies: &[Policy]) -> impl Iterator<Item = &[Policy]> {
        policies.chunk_by(|a, b| {
            a.matches == b.matches && a.mode == b.mode && Partition::of(a.per) == Partition::of(b.per)
        })
    }

    /// `first_id`: the first reservation that it can see.
    pub(crate) fn new(policies: &[Policy], bit: u64, first_id: u64, size: TableSize, now: Time) -> Self {
        let meters = meters(policies, now);
        let matches = policies[0].matches;
        let per = policies[0].per;
        let partition = Partition::of(per);
        let places = u32::try_from(meters.len()).expect("they fit the memory");
        let maximum = policies.iter().filter_map(|policy| policy.concurrency).min();
        Self {
            matches,
            partition,
            for_all: matches == Match::default() && !per.user,
            mode: policies[0].mode,
            buckets: Buckets::new(partition, places, size),
            opens: Opens::default(),
            running: Running::new(maximum),
            policies: policies.to_vec(),
            schedules: HashMap::default(),
            bit,
            first_id,
            running_from: first_id,
            is_durable: meters.iter().any(Meter::is_durable),
            dirty: HashSet::default(),
            saving: HashSet::<u32, FixedState>::default().into_iter(),
            meters,
        }
    }

    #[inline]
    pub(crate) fn applies_to(&self, subject: &Subject) -> bool {
        self.for_all || (self.matches.includes(subject) && self.partition.includes(subject))
    }

    #[inline]
    pub(crate) fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// Whether it can refuse requests of this subject.
    pub(crate) fn refuses_some_of(&self, subject: &Subject) -> bool {
        !self.observes() && self.applies_to(subject)
    }

    /// Its bit in what is noted of a request.
    #[inline]
    pub(crate) fn bit(&self) -> u64 {
        self.bit
    }

    /// A request of this subject comes in a moment.
    #[inline(always)]
    pub(crate) fn prepare(&self, subject: &Subject) {
        self.buckets.prepare(subject);
    }

    /// Reserves all that the request may cost, or nothing.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, admitted: &mut Admitted) -> bool {
        if let Some(row) = self.buckets.direct_row(&admitted.subject)
            && !self.running.is_limited()
        {
            return self.reserve_on(row, admitted);
        }
        self.reserve_on_found_row(admitted)
    }

    // Apart, so that where a row need not be searched for and nothing runs, values stay in registers.
    #[inline(never)]
    fn reserve_on_found_row(&mut self, admitted: &mut Admitted) -> bool {
        let row = self.row(admitted.at, &admitted.subject);
        if self.running.is_limited() && !self.running.start(row) {
            return false;
        }
        self.reserve_on(row, admitted)
    }

    #[inline(always)]
    fn reserve_on(&mut self, row: u32, admitted: &mut Admitted) -> bool {
        for (meter, bucket) in self.meters.iter().zip(self.buckets.row_mut(row)) {
            let Some(step) = meter.step(*bucket, admitted.at, &admitted.amounts) else {
                let reserved = meter.place;
                self.undo(row, reserved, admitted);
                return false;
            };
            open(&mut self.opens, bucket, row, meter, admitted.id, &step);
        }
        self.reserved(row, admitted);
        true
    }

    /// Reserves all that the request may cost, whether it is there or not.
    pub(crate) fn force(&mut self, admitted: &mut Admitted) {
        let now = admitted.at;
        let row = self.row(now, &admitted.subject);
        if self.running.is_limited() {
            self.running.start(row);
        }
        for (meter, bucket) in self.meters.iter().zip(self.buckets.row_mut(row)) {
            let step = meter.forced_step(*bucket, now, &admitted.amounts);
            open(&mut self.opens, bucket, row, meter, admitted.id, &step);
        }
        self.reserved(row, admitted);
    }

    #[inline]
    fn reserved(&mut self, row: u32, admitted: &mut Admitted) {
        self.changed(row);
        if self.buckets.is_overflow(row) {
            admitted.shared |= self.bit;
        }
    }

    /// Undoes a reservation that was made at this same instant: no level, now or later, shows that it was ever there.
    pub(crate) fn take_back(&mut self, admitted: &Admitted) {
        let row = self.row_of(admitted, admitted.at);
        self.undo(row, self.meters.len(), admitted);
    }

    /// The same on the first quotas of a row.
    #[cold]
    #[inline(never)]
    fn undo(&mut self, row: u32, quotas: usize, admitted: &Admitted) {
        let nothing = Amounts::from(Cost::NOTHING);
        self.correct(
            row,
            quotas,
            admitted.at,
            [&admitted.amounts, &nothing],
            admitted.id,
        );
        if self.running.is_limited() {
            self.running.take_back(row);
        }
    }

    /// Replaces what was reserved by what was used.
    #[inline(always)]
    pub(crate) fn settle(&mut self, now: Time, admitted: &Admitted, usage: Cost) {
        if admitted.id < self.first_id {
            self.settle_older(now, admitted);
            return;
        }
        let row = self.row_of(admitted, now);
        if admitted.amounts.cost() == usage && self.opens.is_empty() {
            for bucket in self.buckets.row_mut(row) {
                bucket.close();
            }
        } else {
            let amounts = [&admitted.amounts, &usage.into()];
            self.correct(row, self.meters.len(), now, amounts, admitted.id);
            self.changed(row);
        }
        if self.running.is_limited() {
            self.running.end(row, admitted.at, now);
        }
    }

    /// A request that was admitted before this group was there: of its buckets it knows nothing, but it may count as running.
    #[cold]
    #[inline(never)]
    fn settle_older(&mut self, now: Time, admitted: &Admitted) {
        if self.running.is_limited() && admitted.id >= self.running_from {
            let row = self.row_of(admitted, now);
            self.running.end(row, admitted.at, now);
        }
    }

    /// The row on which a request was admitted.
    #[inline(always)]
    fn row_of(&mut self, admitted: &Admitted, now: Time) -> u32 {
        if admitted.shared & self.bit == 0 {
            self.row(now, &admitted.subject)
        } else {
            OVERFLOW
        }
    }

    /// The subject's row, made if there is none.
    #[inline(always)]
    fn row(&mut self, now: Time, subject: &Subject) -> u32 {
        let Self {
            buckets,
            meters,
            running,
            schedules,
            ..
        } = self;
        buckets.row(subject, |row, buckets| {
            let mut full = meters.iter().zip(buckets);
            let is_idle = full
                .all(|(meter, bucket)| !bucket.is_open() && bucket.level(meter.ticks_at(now)) == 0)
                && running.count(row) == 0
                && schedules.get(&row).is_none_or(Schedule::is_empty);
            if is_idle {
                schedules.remove(&row);
            }
            is_idle
        })
    }

    #[inline]
    fn changed(&mut self, row: u32) {
        if self.is_durable {
            self.dirty.insert(row);
        }
    }

    /// Each policy with the places of its quotas and budgets in a row.
    fn places(&self) -> impl Iterator<Item = (&Policy, Range<usize>)> {
        let mut end = 0;
        self.policies.iter().map(move |policy| {
            let first = end;
            end += policy.quotas.len() + policy.budgets.len();
            (policy, first..end)
        })
    }

    /// Replaces what was reserved on the first quotas of a row by what was used.
    #[inline(never)]
    fn correct(&mut self, row: u32, quotas: usize, now: Time, amounts: [&Amounts; 2], id: u64) {
        let [reserved, used] = amounts;
        let meters = &self.meters[..quotas];
        for (meter, bucket) in meters.iter().zip(self.buckets.row_mut(row)) {
            let (reserved, used) = (meter.ticks_of(reserved), meter.ticks_of(used));
            let ticks = meter.ticks_at(now);
            let saved = reserved.saturating_sub(used);
            let (refund, is_last) = self
                .opens
                .settle(row, meter.place, id, bucket.level(ticks), saved);
            if is_last {
                bucket.close();
            }
            bucket.refund(refund);
            if used > reserved {
                let owed = meter.within_window(bucket.level(ticks), used - reserved);
                bucket.charge(ticks, owed);
                self.dirty.insert(row);
            }
        }
    }

    /// When a calendar window begins next.
    pub(crate) fn next_turn(&self, now: Time) -> Time {
        let turns = self.meters.iter().map(|meter| meter.next_turn(now));
        turns.min().unwrap_or(Time::END)
    }

    /// Brings the clocks of budgets up to date.
    pub(crate) fn turn(&mut self, now: Time) {
        for meter in &mut self.meters {
            meter.turn(now);
        }
    }

    /// Takes over what a newer calendar knows.
    pub(crate) fn follow(&mut self, calendar: &Calendar) {
        for meter in &mut self.meters {
            meter.follow(calendar);
        }
    }
}

#[inline(always)]
fn open(opens: &mut Opens, bucket: &mut Bucket, row: u32, meter: &Meter, id: u64, step: &Step) {
    if bucket.is_open() {
        opens.add(row, meter.place, id, step.before, step.after);
    }
    // An instant and a burst on top of it fit 62 bits, an instant and a debt 63.
    bucket.open(step.now.wrapping_add(step.after));
}

fn meters(policies: &[Policy], now: Time) -> Box<[Meter]> {
    let mut meters = Vec::new();
    for policy in policies {
        for (unit, quota) in &policy.quotas {
            meters.push(Meter::of_quota(meters.len(), *unit, quota));
        }
        for (unit, budget) in &policy.budgets {
            meters.push(Meter::of_budget(meters.len(), *unit, budget, now));
        }
    }
    meters.into_boxed_slice()
}
