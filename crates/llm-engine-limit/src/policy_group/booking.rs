use std::time::Duration;

use super::PolicyGroup;
use crate::bookings::{Booking, Bookings};
use crate::bucket::Bucket;
use crate::cost::Amounts;
use crate::meter::Meter;
use crate::schedule::Schedule;
use crate::{Subject, Time};

/// What a request may take, by the booking that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has none: what is left by those who have one.
    Fresh,
    /// It has one and comes before its time: the same, its own left aside.
    Early {
        /// Its own.
        own: u64,
    },
    /// It must wait for longer than times are booked, and has a claim: what others leave for it is there.
    Waiting {
        /// Its own.
        own: u64,
    },
    /// It comes before its time, while another is late: it takes the other's place.
    InPlaceOf {
        /// Its own.
        own: u64,
        /// The other's.
        other: u64,
    },
    /// It comes at its time or a little later: whatever is there.
    Due {
        /// Its own.
        own: u64,
    },
}

impl Standing {
    pub(crate) fn own(self) -> Option<u64> {
        match self {
            Self::Fresh => None,
            Self::Early { own } | Self::Waiting { own } | Self::InPlaceOf { own, .. } | Self::Due { own } => {
                Some(own)
            }
        }
    }

    pub(crate) fn own_claim(self) -> Option<u64> {
        match self {
            Self::Waiting { own } => Some(own),
            _ => None,
        }
    }
}

/// What bookings mean for a policy group. Nothing here is on the way of a request while there are none.
impl PolicyGroup {
    /// Whether the request can be admitted.
    pub(crate) fn fits(
        &self,
        now: Time,
        subject: Subject,
        amounts: &Amounts,
        standing: Standing,
        bookings: &Bookings,
    ) -> bool {
        let row = self.buckets.find(&subject);
        let schedule = self.schedule(row);
        let mut meters = self.meters.iter().zip(self.row_buckets(row));
        row.is_none_or(|row| self.running.has_place(row))
            && meters.all(|(meter, bucket)| fits(meter, bucket, now, amounts, standing, schedule, bookings))
    }

    /// The earliest booking of the subject's row whose caller has not come although it could have.
    pub(crate) fn earliest_late(&self, subject: Subject) -> Option<u64> {
        self.schedule(self.buckets.find(&subject))?.earliest_late()
    }

    /// Whether the caller may book so much more, and there is a row to book it on. Who had a claim has waited for that.
    pub(crate) fn can_book(
        &mut self,
        now: Time,
        subject: Subject,
        amounts: &Amounts,
        had_claim: bool,
    ) -> bool {
        let row = self.row(now, &subject);
        let ticks = self.ticks_of(amounts);
        let has_share = |schedule: &Schedule| schedule.has_share(subject.caller, &self.meters, &ticks);
        let needs_no_share = had_claim || self.partition.is_per_caller();
        !self.buckets.is_overflow(row) && (needs_no_share || self.schedules.get(&row).is_none_or(has_share))
    }

    /// Whether one more of the subject may wait with a claim.
    pub(crate) fn can_claim(&mut self, now: Time, subject: Subject) -> bool {
        let row = self.row(now, &subject);
        let is_per_caller = self.partition.is_per_caller();
        let has_room = |schedule: &Schedule| schedule.claims.have_room(subject.caller, is_per_caller);
        !self.buckets.is_overflow(row) && self.schedules.get(&row).is_none_or(has_room)
    }

    /// A request waits with a claim from now on.
    pub(crate) fn claim(&mut self, now: Time, id: u64, booking: &Booking) {
        let row = self.row(now, &booking.subject);
        if self.buckets.is_overflow(row) {
            return;
        }
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        let schedule = self.schedule_on(row);
        schedule.claims.add(now, id, booking.subject.caller, &ticks);
    }

    /// A request has what it waited for, or waits no longer.
    pub(crate) fn end_claim(&mut self, now: Time, id: u64, booking: &Booking) {
        let many = self.schedules.len() > SCHEDULES;
        let Some(row) = self.buckets.find(&booking.subject) else {
            return;
        };
        let Some(schedule) = self.schedules.get_mut(&row) else {
            return;
        };
        schedule.claims.remove(now, id);
        if many && schedule.is_empty() {
            self.schedules.remove(&row);
        }
    }

    pub(crate) fn has_time(&self, subject: Subject, due: Time) -> bool {
        let schedule = self.schedule(self.buckets.find(&subject));
        schedule.is_some_and(|schedule| schedule.has_time(due))
    }

    pub(crate) fn book(&mut self, now: Time, id: u64, booking: &Booking) {
        let row = self.row(now, &booking.subject);
        if self.buckets.is_overflow(row) {
            return;
        }
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        let caller = (!self.partition.is_per_caller()).then_some(booking.subject.caller);
        let schedule = self.schedule_on(row);
        schedule.add(booking.due, id, caller, &ticks);
    }

    /// A booking's time has come.
    pub(crate) fn become_due(&mut self, id: u64, booking: &Booking) {
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        if let Some(schedule) = self.schedule_mut(booking.subject) {
            schedule.become_due(booking.due, id, booking.subject.caller, &ticks);
        }
    }

    /// A booking's caller has not come although it could have.
    pub(crate) fn become_late(&mut self, id: u64, booking: &Booking) {
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        if let Some(schedule) = self.schedule_mut(booking.subject) {
            schedule.become_late(booking.due, id, &ticks);
        }
    }

    /// A booking gets another time, which is after now.
    pub(crate) fn move_booking(&mut self, id: u64, booking: &Booking, later: Time) {
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        if let Some(schedule) = self.schedule_mut(booking.subject) {
            schedule.move_to(booking.due, id, later, &ticks);
        }
    }

    /// A booking has ended: it was kept, or nobody came, or (`None`) nobody is waiting for it any more.
    pub(crate) fn end_booking(&mut self, id: u64, booking: &Booking, was_kept: Option<bool>) {
        let ticks = self.ticks_of(&Amounts::from(booking.cost));
        let many = self.schedules.len() > SCHEDULES;
        let Some(row) = self.buckets.find(&booking.subject) else {
            return;
        };
        let Some(schedule) = self.schedules.get_mut(&row) else {
            return;
        };
        let caller = booking.subject.caller;
        schedule.end((id, booking.due), caller, &self.meters, &ticks, was_kept);
        if many && schedule.is_empty() {
            self.schedules.remove(&row);
        }
    }

    /// The bucket at this place determined the time of a booking.
    pub(crate) fn set_end(&mut self, subject: Subject, place: usize, tick: u64, is_anew: bool) {
        if let Some(schedule) = self.schedule_mut(subject) {
            if is_anew {
                schedule.set_front(place, tick);
            } else {
                schedule.set_end(place, tick);
            }
        }
    }

    /// A request was refused because too many run, and told when to come again.
    pub(crate) fn tell_place(&mut self, subject: Subject, now: Time) {
        if let Some(row) = self.buckets.find(&subject) {
            self.running.tell_place(row, now);
        }
    }

    /// How much later than the end of its schedule a bucket says: a little more each time.
    pub(crate) fn spread(&mut self, subject: Subject, place: usize) -> Duration {
        let Some(schedule) = self.schedule_mut(subject) else {
            return Duration::ZERO;
        };
        schedule.spread(place)
    }

    pub(super) fn schedule(&self, row: Option<u32>) -> Option<&Schedule> {
        self.schedules.get(&row?)
    }

    /// The buckets of a row, all full where there is none.
    pub(super) fn row_buckets(&self, row: Option<u32>) -> impl Iterator<Item = Bucket> {
        let buckets = row.and_then(|row| self.buckets.get(row));
        (0..self.meters.len()).map(move |place| buckets.map_or(Bucket::FULL, |buckets| buckets[place]))
    }

    fn schedule_on(&mut self, row: u32) -> &mut Schedule {
        let meters = self.meters.len();
        let schedule = self.schedules.entry(row);
        schedule.or_insert_with(|| Schedule::new(meters))
    }

    fn schedule_mut(&mut self, subject: Subject) -> Option<&mut Schedule> {
        let row = self.buckets.find(&subject)?;
        self.schedules.get_mut(&row)
    }

    fn ticks_of(&self, amounts: &Amounts) -> Vec<u64> {
        let meters = self.meters.iter();
        meters.map(|meter| meter.ticks_of(amounts)).collect()
    }
}

/// Rows whose rate of kept bookings is remembered while they have none.
const SCHEDULES: usize = 1_000;

/// Whether a bucket can give what is asked for.
pub(super) fn fits(
    meter: &Meter,
    bucket: Bucket,
    now: Time,
    amounts: &Amounts,
    standing: Standing,
    schedule: Option<&Schedule>,
    bookings: &Bookings,
) -> bool {
    let asked = amounts.of(meter.unit());
    if asked == 0 || asked > meter.burst() {
        return asked == 0;
    }
    let ticks = meter.ticks_at(now);
    let own_ticks = meter.ticks_of(amounts);
    let after = bucket.level(ticks).saturating_add(own_ticks);
    let most = meter.burst_ticks();
    let Some(schedule) = schedule.filter(|_| meter.refills()) else {
        return after <= most;
    };
    let own_claim = standing.own_claim();
    // Others may have taken a little of what was left for it.
    let is_complete = schedule.booked[meter.place].all > 0
        && schedule
            .claims
            .complete_for(meter, own_claim)
            .is_some_and(|complete| complete <= ticks);
    if matches!(standing, Standing::Due { .. }) || is_complete {
        return after <= most + meter.slack;
    }
    let beside = after.saturating_add(schedule.held_back(meter, ticks, own_claim));
    if beside > most || matches!(standing, Standing::InPlaceOf { .. }) {
        return beside <= most;
    }
    let Some((due, id)) = schedule.next_but(standing.own()) else {
        return true;
    };
    let next = bookings.get(id);
    let next_ticks = meter.ticks_of(&Amounts::from(next.cost));
    let (due, next_held_back) = (
        meter.ticks_at(due),
        schedule.held_back_for(next.subject.caller, next_ticks),
    );
    let refilled = due.saturating_sub(ticks);
    let then = after.saturating_add(schedule.held_back(meter, due, own_claim));
    then.saturating_add(next_held_back) <= most + refilled
}
