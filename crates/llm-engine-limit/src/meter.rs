use std::time::Duration;

use crate::bookings::{GRACE, HORIZON};
use crate::bucket::Bucket;
use crate::budget::LEAP;
use crate::cost::Amounts;
use crate::quota::{MAX_TICKS, Scale};
use crate::saved::SavedLevel;
use crate::{Budget, Calendar, Counted, Quota, Time, Unit};

/// A quota or a budget as decisions need it: all that they read side by side, with the products formed beforehand.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Which of its row's buckets is its own.
    pub(crate) place: usize,
    unit: Unit,
    scale: Scale,
    burst: u64,
    burst_ticks: u64,
    /// Where the clock of a budget stands; [`FLOWS`] for a quota.
    stands_at: u64,
    /// How far over the burst a request may take the bucket that comes at its booked time or a little later.
    pub(crate) slack: u64,
    limit: u64,
    window: Window,
}

/// No tick of a quota is as late.
const FLOWS: u64 = u64::MAX;

#[derive(Debug)]
enum Window {
    Rolling(Duration),
    Calendar {
        calendar: Calendar,
        /// The window in which the clock stood at the first tick.
        origin: u32,
    },
}

/// What a reservation does to a bucket, in ticks.
pub(crate) struct Step {
    pub(crate) now: u64,
    /// What has been taken before and has not refilled.
    pub(crate) before: u64,
    /// The same with the reservation.
    pub(crate) after: u64,
}

impl Meter {
    pub(crate) fn of_quota(place: usize, unit: Unit, quota: &Quota) -> Self {
        Self {
            place,
            unit,
            scale: *quota.scale(),
            burst: quota.burst(),
            burst_ticks: quota.burst_ticks(),
            stands_at: FLOWS,
            // A strict quota has a bound in which there is no room for it.
            slack: if quota.is_strict() {
                0
            } else {
                quota.scale().ticks_in(GRACE)
            },
            limit: quota.limit(),
            window: Window::Rolling(quota.window()),
        }
    }

    pub(crate) fn of_budget(place: usize, unit: Unit, budget: &Budget, now: Time) -> Self {
        let calendar = budget.calendar();
        Self {
            place,
            unit,
            scale: Scale::UNITS,
            burst: budget.limit(),
            burst_ticks: budget.limit(),
            stands_at: LEAP,
            slack: 0,
            limit: budget.limit(),
            window: Window::Calendar {
                calendar: calendar.clone(),
                origin: calendar.window_at(now),
            },
        }
    }

    /// The step by which the bucket gives the amount, if it is there. Nothing is always there, also in debt.
    #[inline]
    pub(crate) fn step(&self, bucket: Bucket, now: Time, amounts: &Amounts) -> Option<Step> {
        let asked = amounts.of(self.unit);
        let step = self.forced_step(bucket, now, amounts);
        let is_there = step.after <= self.burst_ticks && asked <= self.burst;
        (is_there || asked == 0).then_some(step)
    }

    /// The step by which the bucket gives the amount, which is at most the burst, whether it is there or not.
    #[inline]
    pub(crate) fn forced_step(&self, bucket: Bucket, now: Time, amounts: &Amounts) -> Step {
        let asked = amounts.of(self.unit);
        let now = self.ticks_at(now);
        let before = bucket.level(now);
        // Overflows only where more than the burst is asked for: a burst has 62 bits, a debt 63.
        let after = before.wrapping_add(asked.wrapping_mul(self.scale.per_unit));
        Step { now, before, after }
    }

    #[inline]
    pub(crate) fn ticks_at(&self, now: Time) -> u64 {
        if self.stands_at == FLOWS {
            self.scale.ticks_at(now)
        } else {
            self.stands_at
        }
    }

    /// The amount in ticks, saturating.
    pub(crate) fn ticks_of(&self, amounts: &Amounts) -> u64 {
        self.scale.ticks_of(amounts.of(self.unit))
    }

    pub(crate) fn unit(&self) -> Unit {
        self.unit
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }

    pub(crate) fn burst_ticks(&self) -> u64 {
        self.burst_ticks
    }

    /// Of so much that is charged beyond a reservation, what the bucket can owe: the debt of a budget ends with its window.
    pub(crate) fn within_window(&self, level: u64, charge: u64) -> u64 {
        if self.refills() {
            charge
        } else {
            charge.min(LEAP.saturating_sub(level))
        }
    }

    /// When the bucket's clock shows at least `ticks`.
    pub(crate) fn time_at(&self, ticks: u64, now: Time) -> Time {
        match &self.window {
            Window::Rolling(_) => self.scale.time_at(ticks),
            Window::Calendar { .. } if ticks <= self.clock_at(now) => now,
            Window::Calendar { calendar, .. } => calendar.next_turn(now),
        }
    }

    /// How long from `now` until the bucket's clock shows at least `ticks`.
    pub(crate) fn wait_until(&self, ticks: u64, now: Time) -> Duration {
        match &self.window {
            Window::Rolling(_) => self.scale.wait_until(ticks, now),
            Window::Calendar { .. } => self.time_at(ticks, now).since(now),
        }
    }

    /// Whether times can be booked: not where everything comes back at once.
    pub(crate) fn refills(&self) -> bool {
        self.stands_at == FLOWS
    }

    /// What refills within the time that can be booked.
    pub(crate) fn horizon(&self) -> u64 {
        self.scale.ticks_in(HORIZON)
    }

    /// Whether a bucket that was emptied is so for long enough that it must survive a restart. A debt may be, anyway.
    pub(crate) fn is_durable(&self) -> bool {
        !self.refills() || self.scale.time_at(self.burst_ticks) > Time::ZERO + DURABLE
    }

    /// Whether how the bucket stands must survive a restart.
    pub(crate) fn must_be_saved(&self, bucket: Bucket, now: Time) -> bool {
        self.is_durable() || self.wait_until(bucket.tat(), now) > DURABLE
    }

    /// When the next window begins, for a budget.
    pub(crate) fn next_turn(&self, now: Time) -> Time {
        match &self.window {
            Window::Rolling(_) => Time::END,
            Window::Calendar { calendar, .. } => calendar.next_turn(now),
        }
    }

    /// Brings the clock of a budget up to date. It never goes back.
    pub(crate) fn turn(&mut self, now: Time) {
        if !self.refills() {
            self.stands_at = self.clock_at(now);
        }
    }

    /// What [`Self::ticks_at`] says once the clock is up to date.
    fn clock_at(&self, now: Time) -> u64 {
        match &self.window {
            Window::Rolling(_) => self.scale.ticks_at(now),
            Window::Calendar { calendar, origin } => {
                let windows = calendar.window_at(now).saturating_sub(*origin).min(MOST_WINDOWS);
                self.stands_at.max((u64::from(windows) + 1) * LEAP)
            }
        }
    }

    /// Takes over what a newer calendar knows.
    pub(crate) fn follow(&mut self, newer: &Calendar) {
        if let Window::Calendar { calendar, .. } = &mut self.window
            && calendar.counts_like(newer)
        {
            *calendar = newer.clone();
        }
    }

    /// The number of the running calendar window, for a budget.
    pub(crate) fn calendar_window(&self, now: Time) -> Option<u32> {
        match &self.window {
            Window::Rolling(_) => None,
            Window::Calendar { calendar, .. } => Some(calendar.window_at(now)),
        }
    }

    pub(crate) fn counted(&self) -> Counted {
        let unit = self.unit;
        match &self.window {
            Window::Rolling(window) => Counted::PerWindow {
                unit,
                window: *window,
            },
            Window::Calendar { calendar, .. } => Counted::PerPeriod {
                unit,
                period: calendar.period(),
            },
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whole units that could be taken now.
    pub(crate) fn remaining(&self, bucket: Bucket, held_back: u64, now: Time) -> u64 {
        let taken = bucket.level(self.clock_at(now)).saturating_add(held_back);
        self.burst_ticks.saturating_sub(taken) / self.scale.per_unit
    }

    /// How the bucket stands, for a restart.
    pub(crate) fn saved(&self, bucket: Bucket, now: Time) -> SavedLevel {
        let units = self.missing(bucket, now);
        match self.calendar_window(now) {
            Some(window) => SavedLevel::Spent { window, units },
            None if self.wait_until(bucket.tat(), now) <= DURABLE => SavedLevel::Missing { units: 0 },
            None => SavedLevel::Missing { units },
        }
    }

    /// Of so many missing units those that have not refilled after that time, rounded up.
    pub(crate) fn missing_after(&self, units: u64, age: Duration) -> u64 {
        let ticks = self
            .ticks_of_units(units)
            .saturating_sub(self.scale.ticks_in(age));
        ticks.div_ceil(self.scale.per_unit)
    }

    pub(crate) fn ticks_of_units(&self, units: u64) -> u64 {
        self.scale.ticks_of(units)
    }

    /// Whether the other counts the same, in whatever amount.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        let same_window = match (&self.window, &other.window) {
            (Window::Rolling(_), Window::Rolling(_)) => true,
            (Window::Calendar { calendar, .. }, Window::Calendar { calendar: other, .. }) => {
                calendar.counts_like(other)
            }
            _ => false,
        };
        same_window && self.unit == other.unit
    }

    /// How much of this one is taken from the start where so much is missing of a bucket that the other has counted. Where
    /// both count in the same ticks, nothing is rounded.
    pub(crate) fn inherited(&self, other: &Self, bucket: Bucket, now: Time) -> u64 {
        let level = bucket.level(other.ticks_at(now));
        let debt = level.saturating_sub(other.burst_ticks);
        let own_ticks = |ticks: u64| {
            if self.scale == other.scale {
                ticks
            } else {
                self.ticks_of_units(ticks.div_ceil(other.scale.per_unit))
            }
        };
        let missing = own_ticks(level - debt).min(self.burst_ticks);
        missing.saturating_add(own_ticks(debt)).min(MAX_TICKS)
    }

    /// Whole units that are missing, rounded up.
    pub(crate) fn missing(&self, bucket: Bucket, now: Time) -> u64 {
        bucket.level(self.ticks_at(now)).div_ceil(self.scale.per_unit)
    }
}

/// So that the last tick stays within 62 bits: eleven years of days.
const MOST_WINDOWS: u32 = 4_000;

/// Levels that are back within this time are not kept over a restart.
const DURABLE: Duration = Duration::from_secs(60);
