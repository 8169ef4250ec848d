use std::time::Duration;

use super::PolicyGroup;
use super::booking::{Standing, fits};
use crate::bookings::{Booking, Bookings};
use crate::bucket::Bucket;
use crate::cost::Amounts;
use crate::meter::Meter;
use crate::{Counted, Level, NeverFits, Policy, Refused, Subject, Time};

/// Why a request is refused, put together from all policy groups.
#[derive(Debug, Default)]
pub(crate) struct Refusing {
    pub(crate) refused: Vec<Refused>,
    /// When the last of the refusing buckets could give what is asked for.
    pub(crate) due: Time,
    /// When the last of them has given all that was booked before, and begins to refill for this request.
    pub(crate) begin: Time,
    /// Whether one of them needs longer to refill for this request than times are booked.
    pub(crate) is_long: bool,
    /// Each refusing bucket and the tick at which it could: group, place, tick, time.
    pub(crate) turns: Vec<(usize, usize, u64, Time)>,
    /// The groups in which as many requests run as may.
    pub(crate) full: Vec<usize>,
    /// Whether somebody else's bookings are in the way.
    pub(crate) is_booked_up: bool,
    /// Whether a time can be booked: all that refuses refills steadily.
    pub(crate) is_bookable: bool,
}

impl Refusing {
    /// A bucket of the group at `index` can give the ticks asked for at this tick and time.
    fn add_turn(
        &mut self,
        (index, meter, ticks): (usize, &Meter, u64),
        (turn, time): (u64, Time),
        now: Time,
    ) {
        self.due = self.due.max(time);
        let begin = meter.time_at(turn.saturating_sub(ticks), now);
        self.begin = self.begin.max(begin);
        self.is_long |= ticks > meter.horizon();
        self.turns.push((index, meter.place, turn, time));
    }
}

/// Of a request that is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The clock as given: waits count from here.
    pub(crate) given: Time,
    /// The same, or the latest time seen.
    pub(crate) now: Time,
    pub(crate) subject: Subject,
    pub(crate) amounts: &'a Amounts,
    pub(crate) standing: Standing,
}

/// What a policy group says of itself: why it refuses, and how its quotas stand. Nothing here is on the way of a request
/// that is admitted.
impl PolicyGroup {
    /// Adds every quota that refuses. `index`: this group's.
    pub(crate) fn check(
        &self,
        index: usize,
        question: Question<'_>,
        bookings: &Bookings,
        refusing: &mut Refusing,
    ) -> Result<(), NeverFits> {
        let Question {
            given,
            now,
            subject,
            amounts,
            standing,
        } = question;
        let row = self.buckets.find(&subject);
        let schedule = self.schedule(row);
        for (policy, buckets) in self.policies_with(row) {
            for (meter, bucket) in buckets {
                let asked = amounts.of(meter.unit());
                if asked > meter.burst() {
                    return Err(NeverFits {
                        policy: policy.name,
                        counted: meter.counted(),
                        asked,
                        burst: meter.burst(),
                    });
                }
                let clock = meter.ticks_at(now);
                let (level, ticks) = (bucket.level(clock), meter.ticks_of(amounts));
                let turn = match (standing, schedule.filter(|_| meter.refills())) {
                    (Standing::Due { .. }, Some(schedule)) => schedule.turn_anew(meter, clock, level, ticks),
                    (Standing::Early { own }, Some(schedule)) => {
                        let own = meter.ticks_of(&Amounts::from(bookings.get(own).cost));
                        schedule.turn_again(meter, clock, level, ticks, own)
                    }
                    (_, Some(schedule)) => schedule.turn_of(meter, clock, level, ticks, standing.own_claim()),
                    (_, None) => (clock + level + ticks).saturating_sub(meter.burst_ticks()),
                };
                let time = meter.time_at(turn, now);
                if fits(meter, bucket, now, amounts, standing, schedule, bookings) {
                    // It may not once all that is booked has been taken.
                    if asked > 0 && !matches!(standing, Standing::Due { .. }) && time > now {
                        refusing.add_turn((index, meter, ticks), (turn, time), now);
                    }
                    continue;
                }
                let schedule = schedule.filter(|_| meter.refills());
                let own_claim = standing.own_claim();
                let held_back = schedule.map_or(0, |schedule| schedule.held_back(meter, clock, own_claim));
                let wait = if meter.refills() {
                    meter.wait_until(turn, given)
                } else {
                    time.since(given)
                };
                refusing.refused.push(Refused {
                    policy: policy.name,
                    counted: meter.counted(),
                    limit: meter.limit(),
                    asked,
                    remaining: meter.remaining(bucket, held_back, now),
                    wait,
                });
                refusing.add_turn((index, meter, ticks), (turn, time), now);
                refusing.is_booked_up |= schedule.is_some_and(|schedule| {
                    schedule.booked[meter.place].all > 0 || schedule.claims.has_another(own_claim)
                });
                refusing.is_bookable &= meter.refills();
            }
            if let Some(maximum) = policy.concurrency
                && let Some(row) = row
                && self.running.count(row) >= maximum.get()
            {
                let wait = self.running.next_place(row, now).since(given);
                // Once, whatever number of its policies are full.
                if refusing.full.last() != Some(&index) {
                    refusing.full.push(index);
                }
                refusing.refused.push(Refused {
                    policy: policy.name,
                    counted: Counted::Concurrency,
                    limit: maximum.get().into(),
                    asked: 1,
                    remaining: 0,
                    wait,
                });
                refusing.is_bookable = false;
            }
        }
        Ok(())
    }

    /// Appends how every quota stands for the subject, or for a request of it that comes for this booking.
    pub(crate) fn levels(
        &self,
        now: Time,
        subject: Subject,
        own: Option<(u64, Booking)>,
        levels: &mut Vec<Level>,
    ) {
        let row = self.buckets.find(&subject);
        let schedule = self.schedule(row);
        let running = row.map_or(0, |row| self.running.count(row));
        for (policy, buckets) in self.policies_with(row) {
            levels.extend(buckets.map(|(meter, bucket)| {
                let clock = meter.ticks_at(now);
                let held_back = schedule.map_or(0, |schedule| match own {
                    None => schedule.held_back(meter, clock, None),
                    Some((id, booking)) => {
                        let ticks = meter.ticks_of(&Amounts::from(booking.cost));
                        schedule.held_back_by_others(meter, clock, (booking.due, id), ticks)
                    }
                });
                Level {
                    policy: policy.name,
                    counted: meter.counted(),
                    limit: meter.limit(),
                    remaining: meter.remaining(bucket, held_back, now),
                    full_in: meter.wait_until(bucket.tat(), now),
                }
            }));
            levels.extend(policy.concurrency.map(|maximum| Level {
                policy: policy.name,
                counted: Counted::Concurrency,
                limit: maximum.get().into(),
                remaining: maximum.get().saturating_sub(running).into(),
                full_in: Duration::ZERO,
            }));
        }
    }

    /// Each policy with its quotas and their buckets.
    pub(super) fn policies_with(
        &self,
        row: Option<u32>,
    ) -> impl Iterator<Item = (&Policy, impl Iterator<Item = (&Meter, Bucket)>)> {
        let buckets = row.and_then(|row| self.buckets.get(row));
        self.places().map(move |(policy, places)| {
            let bucket = move |meter: &Meter| buckets.map_or(Bucket::FULL, |buckets| buckets[meter.place]);
            let own = self.meters[places].iter();
            (policy, own.map(move |meter| (meter, bucket(meter))))
        })
    }
}
