use crate::quota::MAX_TICKS;

/// The live state of one quota for one partition key.
///
/// The whole level is one number, GCRA's theoretical arrival time: the tick at which the bucket will be full again. A
/// bucket that was never touched, and one that is full again, behave alike, so a missing bucket is `tat = 0`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Theoretical arrival time, in ticks of the quota.
    pub(crate) tat: u64,
    /// Where the bucket's open reservations are kept, or [`NO_OPEN`].
    pub(crate) open: u32,
}

/// The bucket has no open reservations.
pub(crate) const NO_OPEN: u32 = u32::MAX;

impl Bucket {
    pub(crate) const FULL: Self = Self {
        tat: 0,
        open: NO_OPEN,
    };

    /// Ticks until the bucket is full: what has been taken and has not yet refilled.
    pub(crate) fn level(&self, now: u64) -> u64 {
        self.tat.saturating_sub(now)
    }

    /// Whether `cost` ticks can be taken now; if not, the tick at which they can, were nothing else taken meanwhile.
    pub(crate) fn check(&self, now: u64, cost: u64, burst: u64) -> Result<(), u64> {
        let full_again = self.tat.max(now) + cost;
        if full_again <= now + burst {
            Ok(())
        } else {
            Err(full_again - burst)
        }
    }

    /// Takes `cost` ticks, whether or not they are there: past the burst the bucket is in debt.
    pub(crate) fn charge(&mut self, now: u64, cost: u64) {
        // A debt of 2^62 ticks is decades: more can't be told apart from never.
        self.tat = (self.tat.max(now) + cost).min(2 * MAX_TICKS);
    }

    /// Gives back ticks that were taken and not used. `refund` is at most what every level since then allows.
    pub(crate) fn refund(&mut self, refund: u64) {
        self.tat -= refund;
    }
}
