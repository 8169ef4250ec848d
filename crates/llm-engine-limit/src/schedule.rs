use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::Time;
use crate::bookings::HORIZON;
use crate::claims::Claims;
use crate::meter::Meter;

/// What the bookings on one row of buckets come to.
///
/// Who is refused gets the time at which all bookings before its own would have been served. Who comes without a booking
/// must leave room for those whose time has come just now and for the next one. Not all who have a booking come back: so the room
/// that is left is the *kept rate* of it, learned from those who did and did not come. A bucket that kept all of it for
/// callers who never come would hardly admit anybody.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// In the order of the row's buckets.
    pub(crate) booked: Box<[Booked]>,
    upcoming: BTreeSet<(Time, u64)>,
    /// Those whose time has come just now, each with its weight.
    due: BTreeMap<(Time, u64), Rate>,
    /// Those whose callers have not come although they could have. Nothing is left for them: some come nevertheless, and
    /// there is slack for these.
    late: BTreeSet<(Time, u64)>,
    /// Of those that must wait for longer than times are booked.
    pub(crate) claims: Claims,
    /// The rate at which the row's bookings are kept.
    kept: Rate,
    /// Only where callers share the row.
    callers: HashMap<u32, Share, FixedState>,
}

/// What is booked on one bucket, in ticks. Sums have twice the bits of a tick: after a reload bookings may be for more than
/// a bucket ever holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Booked {
    /// By all bookings.
    pub(crate) all: u128,
    /// By those whose time has come just now, by weight.
    due: u128,
    /// The time of the latest booking that this bucket has determined.
    end: u64,
    /// The time of the latest one that could not be kept and was booked anew.
    front: u64,
    /// How many have found no time to book.
    unbooked: u32,
}

/// One caller's part in a shared row.
#[derive(Debug, Clone)]
struct Share {
    bookings: u32,
    /// In the order of the row's buckets.
    ticks: Box<[u128]>,
    kept: Rate,
    /// How many of its bookings have ended, up to [`MEMORY`].
    ended: u32,
}

/// A fraction in 65,536ths.
type Rate = u32;
const ONE: Rate = 1 << 16;
/// An average forgets all but about the last so many.
const MEMORY: u32 = 50;
/// As many of a caller's own bookings count as much as all that is known of the row.
const PRIOR: u32 = 20;
/// A caller may be so many times as reliable as all together.
const MOST_WEIGHT: Rate = 16 * ONE;
/// Callers without bookings that are remembered.
const CALLERS: usize = 1_000;

impl Schedule {
    pub(crate) fn new(meters: usize) -> Self {
        Self {
            booked: vec![Booked::default(); meters].into_boxed_slice(),
            upcoming: BTreeSet::new(),
            due: BTreeMap::new(),
            late: BTreeSet::new(),
            claims: Claims::default(),
            kept: ONE,
            callers: HashMap::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.upcoming.is_empty() && self.due.is_empty() && self.late.is_empty() && self.claims.is_empty()
    }

    /// The earliest booking whose caller is late.
    pub(crate) fn earliest_late(&self) -> Option<u64> {
        self.late.first().map(|(_, id)| *id)
    }

    /// The next whose time comes, but for one.
    pub(crate) fn next_but(&self, own: Option<u64>) -> Option<(Time, u64)> {
        self.upcoming.iter().find(|(_, id)| Some(*id) != own).copied()
    }

    /// What is left on a bucket for those whose time has come just now, and for the first claim.
    pub(crate) fn held_back(&self, meter: &Meter, now: u64, own_claim: Option<u64>) -> u64 {
        let claimed = self.claims.kept(meter, now, own_claim);
        times(self.booked[meter.place].due, self.kept).saturating_add(claimed)
    }

    /// The same for one of those, whose own room is not in its way.
    pub(crate) fn held_back_by_others(&self, meter: &Meter, now: u64, own: (Time, u64), ticks: u64) -> u64 {
        let (_, id) = own;
        let own = self
            .due
            .get(&own)
            .map_or(0, |weight| times(ticks.into(), *weight));
        let due = self.booked[meter.place].due.saturating_sub(own.into());
        times(due, self.kept).saturating_add(self.claims.kept(meter, now, Some(id)))
    }

    /// What is kept for one that is not yet due.
    pub(crate) fn held_back_for(&self, caller: u32, ticks: u64) -> u64 {
        times(times(ticks.into(), self.weight(caller)).into(), self.kept)
    }

    /// Whether the caller may book so much more.
    pub(crate) fn has_share(&self, caller: u32, meters: &[Meter], ticks: &[u64]) -> bool {
        let others = self
            .callers
            .iter()
            .filter(|(id, share)| **id != caller && share.bookings > 0);
        // So that there is always room for one that has booked nothing yet.
        let parts = others.count() as u64 + 2;
        let own = self.callers.get(&caller);
        meters.iter().zip(ticks).all(|(meter, ticks)| {
            let booked = own.map_or(0, |own| own.ticks[meter.place]);
            !meter.refills()
                || *ticks == 0
                // However large it is: it would never find so much unbooked.
                || booked == 0
                || booked + u128::from(*ticks) <= u128::from((meter.horizon() + meter.burst_ticks()) / parts)
        })
    }

    /// The tick from which on a bucket can give so much more, after all that is booked and beside what is claimed.
    /// `level` is what is taken already.
    pub(crate) fn turn_of(
        &self,
        meter: &Meter,
        now: u64,
        level: u64,
        ticks: u64,
        own_claim: Option<u64>,
    ) -> u64 {
        let booked = &self.booked[meter.place];
        let after_all = after(booked.all, meter, now, level, ticks);
        if let Some(complete) = self.claims.complete_for(meter, own_claim) {
            return match booked.all {
                0 => after_all,
                // Others may have taken a little of what was left for it.
                _ if complete <= now => {
                    (now + level + ticks).saturating_sub(meter.burst_ticks() + meter.slack)
                }
                _ => after_all.min(complete),
            };
        }
        let turn = self.claims.turn_beside(meter, after_all, own_claim);
        turn.max(following(booked.end, now, ticks))
    }

    /// The same for one that has booked `own` already and asks again.
    pub(crate) fn turn_again(&self, meter: &Meter, now: u64, level: u64, ticks: u64, own: u64) -> u64 {
        let others = self.booked[meter.place].all.saturating_sub(own.into());
        let turn = after(others, meter, now, level, ticks);
        self.claims.turn_beside(meter, turn, None)
    }

    /// The tick from which on a bucket can give what was promised and could not be given: before everybody else.
    pub(crate) fn turn_anew(&self, meter: &Meter, now: u64, level: u64, ticks: u64) -> u64 {
        let room = meter.burst_ticks() + meter.slack;
        let booked = &self.booked[meter.place];
        let first = (now + level + ticks).saturating_sub(room);
        first.max(following(booked.front, now, ticks))
    }

    /// The bucket determined a time.
    pub(crate) fn set_end(&mut self, place: usize, tick: u64) {
        let booked = &mut self.booked[place];
        booked.end = booked.end.max(tick);
    }

    /// The bucket determined a time for one that was booked anew.
    pub(crate) fn set_front(&mut self, place: usize, tick: u64) {
        let booked = &mut self.booked[place];
        booked.front = booked.front.max(tick);
    }

    /// How much later than the end of the schedule somebody is told to come who found no time: spread over a minute, in
    /// the order of a low-discrepancy sequence, so that any few of them are far apart.
    pub(crate) fn spread(&mut self, place: usize) -> Duration {
        let booked = &mut self.booked[place];
        booked.unbooked = booked.unbooked.wrapping_add(1);
        // The golden ratio in 2^32nds: its multiples are the most evenly spread.
        let part = booked.unbooked.wrapping_mul(0x9e37_79b9);
        HORIZON.mul_f64(f64::from(part) / 2_f64.powi(32))
    }

    /// Whether a time is taken.
    pub(crate) fn has_time(&self, due: Time) -> bool {
        self.upcoming.range((due, 0)..=(due, u64::MAX)).next().is_some()
    }

    /// A booking was made.
    pub(crate) fn add(&mut self, due: Time, id: u64, caller: Option<u32>, ticks: &[u64]) {
        self.upcoming.insert((due, id));
        for (booked, ticks) in self.booked.iter_mut().zip(ticks) {
            booked.all += u128::from(*ticks);
        }
        let Some(caller) = caller else { return };
        if self.callers.len() > CALLERS {
            self.callers.retain(|_, share| share.bookings > 0);
        }
        let kept = self.kept;
        let share = self.callers.entry(caller).or_insert_with(|| Share {
            bookings: 0,
            ticks: vec![0; ticks.len()].into_boxed_slice(),
            kept,
            ended: 0,
        });
        share.bookings += 1;
        for (sum, ticks) in share.ticks.iter_mut().zip(ticks) {
            *sum += u128::from(*ticks);
        }
    }

    /// A booking's time has come.
    pub(crate) fn become_due(&mut self, due: Time, id: u64, caller: u32, ticks: &[u64]) {
        if self.upcoming.remove(&(due, id)) {
            let weight = self.weight(caller);
            self.due.insert((due, id), weight);
            for (booked, ticks) in self.booked.iter_mut().zip(ticks) {
                booked.due += u128::from(times((*ticks).into(), weight));
            }
        }
    }

    /// A booking's caller has not come although it could have.
    pub(crate) fn become_late(&mut self, due: Time, id: u64, ticks: &[u64]) {
        if self.leave(due, id, ticks) {
            self.late.insert((due, id));
        }
    }

    /// A booking gets another time.
    pub(crate) fn move_to(&mut self, due: Time, id: u64, later: Time, ticks: &[u64]) {
        if self.leave(due, id, ticks) {
            self.upcoming.insert((later, id));
        }
    }

    /// A booking has ended: it was kept, or nobody came, or (`None`) nobody is waiting for it any more.
    pub(crate) fn end(
        &mut self,
        (id, due): (u64, Time),
        caller: u32,
        meters: &[Meter],
        ticks: &[u64],
        was_kept: Option<bool>,
    ) {
        if !self.leave(due, id, ticks) {
            return;
        }
        // A time that was promised and has been given up binds nobody any more.
        let last = self.upcoming.last().map_or(Time::ZERO, |(due, _)| *due);
        for ((booked, ticks), meter) in self.booked.iter_mut().zip(ticks).zip(meters) {
            booked.all -= u128::from(*ticks);
            let last = meter.ticks_at(last);
            booked.end = booked.end.min(last);
            booked.front = booked.front.min(last);
        }
        let share = self.callers.get_mut(&caller);
        if let Some(was_kept) = was_kept {
            self.kept = averaged(self.kept, was_kept);
        }
        let Some(share) = share else { return };
        share.bookings -= 1;
        for (sum, ticks) in share.ticks.iter_mut().zip(ticks) {
            *sum -= u128::from(*ticks);
        }
        if let Some(was_kept) = was_kept {
            share.kept = averaged(share.kept, was_kept);
            share.ended = (share.ended + 1).min(MEMORY);
        }
    }

    /// Whether the booking was there: not where its row is shared by keys that found none of their own.
    fn leave(&mut self, due: Time, id: u64, ticks: &[u64]) -> bool {
        if self.upcoming.remove(&(due, id)) || self.late.remove(&(due, id)) {
            return true;
        }
        let Some(weight) = self.due.remove(&(due, id)) else {
            return false;
        };
        for (booked, ticks) in self.booked.iter_mut().zip(ticks) {
            booked.due -= u128::from(times((*ticks).into(), weight));
        }
        true
    }

    /// How reliable the caller is, measured by all together: what is known of it, as far as that is much.
    fn weight(&self, caller: u32) -> Rate {
        let Some(share) = self.callers.get(&caller) else {
            return ONE;
        };
        let known = u64::from(share.kept) * u64::from(share.ended) + u64::from(self.kept) * u64::from(PRIOR);
        let kept = known / u64::from(share.ended + PRIOR);
        let weight = (kept << 16) / u64::from(self.kept.max(1));
        u32::try_from(weight).unwrap_or(MOST_WEIGHT).min(MOST_WEIGHT)
    }
}

/// The tick from which on a bucket can give so much, after so much that is booked.
fn after(booked: u128, meter: &Meter, now: u64, level: u64, ticks: u64) -> u64 {
    let taken = [now, level, ticks].map(u128::from).iter().sum::<u128>() + booked;
    let turn = taken.saturating_sub(meter.burst_ticks().into());
    u64::try_from(turn).unwrap_or(u64::MAX)
}

/// The turn after one that is still to come.
fn following(turn: u64, now: u64, ticks: u64) -> u64 {
    if turn > now { turn + ticks } else { 0 }
}

fn times(ticks: u128, rate: Rate) -> u64 {
    let product = (ticks * u128::from(rate)) >> 16;
    u64::try_from(product).unwrap_or(u64::MAX)
}

fn averaged(rate: Rate, was_kept: bool) -> Rate {
    if was_kept {
        rate + (ONE - rate).div_ceil(MEMORY)
    } else {
        rate - rate.div_ceil(MEMORY)
    }
}
