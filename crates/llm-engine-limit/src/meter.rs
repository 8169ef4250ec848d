use crate::bucket::Bucket;
use crate::cost::Amounts;
use crate::quota::Scale;
use crate::{Quota, Time, Unit};

/// A quota as decisions need it: all that they read side by side, with the products formed beforehand.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Which of its row's buckets is its own.
    pub(crate) place: usize,
    unit: Unit,
    scale: Scale,
    burst: u64,
    burst_ticks: u64,
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
    pub(crate) fn new(place: usize, unit: Unit, quota: &Quota) -> Self {
        Self {
            place,
            unit,
            scale: *quota.scale(),
            burst: quota.burst(),
            burst_ticks: quota.burst_ticks(),
        }
    }

    /// The step by which the bucket gives the amount, if it is there. Nothing is always there, also in debt.
    #[inline]
    pub(crate) fn step(&self, bucket: Bucket, now: Time, amounts: &Amounts) -> Option<Step> {
        let asked = amounts.of(self.unit);
        let now = self.scale.ticks_at(now);
        let before = bucket.level(now);
        // Overflows only where more than the burst is asked for: a burst has 62 bits, a debt 63.
        let after = before.wrapping_add(asked.wrapping_mul(self.scale.per_unit));
        if asked > self.burst || (after > self.burst_ticks && asked > 0) {
            return None;
        }
        Some(Step { now, before, after })
    }

    pub(crate) fn ticks_at(&self, now: Time) -> u64 {
        self.scale.ticks_at(now)
    }

    /// The amount in ticks, saturating.
    pub(crate) fn ticks_of(&self, amounts: &Amounts) -> u64 {
        self.scale.ticks_of(amounts.of(self.unit))
    }
}
