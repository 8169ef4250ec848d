use crate::{Calendar, QuotaError};

/// An amount per calendar window. Nothing refills within a window; with the next one everything is there again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    limit: u64,
    calendar: Calendar,
}

/// A window's ticks are one unit each; the next window's ticks begin so much further on. So a budget is a quota whose
/// clock stands still and leaps at the turn of the calendar: the arithmetic of buckets is the same for both.
pub(crate) const LEAP: u64 = 1 << 50;

impl Budget {
    /// The largest limit, 2^49 units: half a million dollars in nano-dollars.
    pub const MAX_LIMIT: u64 = LEAP / 2;

    /// `limit` per window of the calendar.
    ///
    /// # Errors
    /// [`QuotaError`] where nothing would ever be admitted, or above [`Self::MAX_LIMIT`].
    pub fn new(limit: u64, calendar: Calendar) -> Result<Self, QuotaError> {
        if limit == 0 {
            return Err(QuotaError::ZeroLimit);
        }
        if limit > Self::MAX_LIMIT {
            return Err(QuotaError::LargeBudget);
        }
        Ok(Self { limit, calendar })
    }

    /// Units per window.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// When its windows begin.
    #[must_use]
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}
