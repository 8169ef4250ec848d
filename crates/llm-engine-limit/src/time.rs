use std::time::Duration;

/// An instant: nanoseconds since an epoch of the caller's choice, such as the start of the process.
///
/// The clock must not run past [`Time::END`]; from there on buckets no longer refill. A clock that goes back gives
/// nobody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// The end of time, 2^60 ns (36 years) after the epoch: up to here every accepted quota is counted without overflow.
    pub const END: Self = Self(1 << 60);

    /// The instant this long after the epoch, or [`Time::END`] if that is later.
    #[must_use]
    pub fn after_epoch(elapsed: Duration) -> Self {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Self(nanos.min(Self::END.0))
    }

    /// The instant that many nanoseconds after the epoch, or [`Time::END`] if that is later.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos > Self::END.0 {
            Self::END
        } else {
            Self(nanos)
        }
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    /// Saturates at [`Time::END`].
    fn add(self, wait: Duration) -> Self {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self::from_nanos(self.0.saturating_add(nanos))
    }
}
