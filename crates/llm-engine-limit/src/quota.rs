use std::time::Duration;

use crate::Time;
use crate::bookings::GRACE;

/// An amount of something per window, with burst.
///
/// The bucket of a quota refills steadily: `limit` units spread over `window`. `burst` is the most that a bucket holds,
/// so the most that can be taken at one instant; where it is not given it is `limit`.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_limit::Quota;
///
/// // One unit refills every 0.6 s; 100 can be taken at once.
/// let per_minute = Quota::new(100, Duration::from_secs(60))?;
/// // The same refill, but no more than 10 at once.
/// let smooth = Quota::with_burst(100, Duration::from_secs(60), 10)?;
/// // No minute anywhere sees more than 100: 10 at once, the other 90 spread over the window.
/// let strict = Quota::strict(100, Duration::from_secs(60), 10)?;
/// # Ok::<(), llm_engine_limit::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: u64,
    window: Duration,
    burst: u64,
    strict: bool,
    scale: Scale,
}

/// Why a quota can't be enforced as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Nothing would ever be admitted.
    #[error("the limit is 0; it must be at least 1")]
    ZeroLimit,
    /// No rate can be derived.
    #[error("the window is 0; it must be longer")]
    ZeroWindow,
    /// Nothing would ever be admitted.
    #[error("the burst is 0; it must be at least 1")]
    ZeroBurst,
    /// A strict quota spreads `limit - burst` over the window, so that must be something.
    #[error("a strict quota needs a burst below its limit; the burst is {burst}, the limit {limit}")]
    StrictBurst {
        /// The burst that was asked for.
        burst: u64,
        /// The limit that was asked for.
        limit: u64,
    },
    /// A calendar budget that its buckets can't hold.
    #[error(
        "the limit is above {}, the most that a calendar window can have",
        crate::Budget::MAX_LIMIT
    )]
    LargeBudget,
    /// No tick up to a millisecond counts both time and units in whole numbers of 62 bits.
    #[error(
        "{amount} per {} s with burst {burst} can't be counted exactly; a smaller burst, or a limit with more trailing \
         zeros, can",
        .window.as_secs_f64()
    )]
    Inexact {
        /// What refills in one window.
        amount: u64,
        /// The window.
        window: Duration,
        /// The burst.
        burst: u64,
    },
}

impl Quota {
    /// `limit` per `window`, with a burst of `limit`.
    ///
    /// # Errors
    /// [`QuotaError`] where the quota would admit nothing or can't be counted exactly.
    pub fn new(limit: u64, window: Duration) -> Result<Self, QuotaError> {
        Self::with_burst(limit, window, limit)
    }

    /// `limit` per `window`, of which at most `burst` can be taken at once. `burst` may be above `limit`.
    ///
    /// # Errors
    /// [`QuotaError`] where the quota would admit nothing or can't be counted exactly.
    pub fn with_burst(limit: u64, window: Duration, burst: u64) -> Result<Self, QuotaError> {
        let scale = Scale::for_rate(limit, window, burst)?;
        Ok(Self {
            limit,
            window,
            burst,
            strict: false,
            scale,
        })
    }

    /// At most `limit` in any window, wherever it begins: `burst` at once and the rest, `limit - burst`, spread over the
    /// window.
    ///
    /// # Errors
    /// [`QuotaError`] where the burst is not below the limit, the quota would admit nothing, or it can't be counted
    /// exactly.
    pub fn strict(limit: u64, window: Duration, burst: u64) -> Result<Self, QuotaError> {
        if limit == 0 {
            return Err(QuotaError::ZeroLimit);
        }
        if burst >= limit {
            return Err(QuotaError::StrictBurst { burst, limit });
        }
        let scale = Scale::for_rate(limit - burst, window, burst)?;
        Ok(Self {
            limit,
            window,
            burst,
            strict: true,
            scale,
        })
    }

    /// Units per window, as configured.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The most units that a bucket holds.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Whether `limit` bounds every window, instead of `burst + rate · window`.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The resolution of this quota's clock: decisions of one tick see the same time. At most a millisecond.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_nanos(self.scale.quantum_nanos)
    }

    /// How long it takes until so many units have refilled.
    #[must_use]
    pub fn refill_time(&self, units: u64) -> Duration {
        self.scale.wait_until(self.scale.ticks_of(units), Time::ZERO)
    }

    pub(crate) fn scale(&self) -> &Scale {
        &self.scale
    }

    pub(crate) fn burst_ticks(&self) -> u64 {
        self.burst * self.scale.per_unit
    }
}

/// How a quota counts: time and units both in whole ticks, so that nothing is ever rounded.
///
/// A unit refills every `window / amount`. As a fraction in lowest terms over a time quantum that is `per_unit /
/// per_quantum`; a tick is the quantum divided by `per_quantum`. The quantum is a nanosecond where everything fits, and
/// up to a millisecond for long windows and large bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    quantum_nanos: u64,
    /// Ticks in one quantum of time.
    per_quantum: u64,
    /// Ticks in which one unit refills.
    pub(crate) per_unit: u64,
}

const QUANTA_NANOS: [u64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Ticks fit 62 bits, so that the sum of two of them, a time and a burst, can be formed without care.
pub(crate) const MAX_TICKS: u64 = 1 << 62;

const fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

impl Scale {
    /// Ticks and units are the same, for a clock that stands still.
    pub(crate) const UNITS: Self = Self {
        quantum_nanos: 1,
        per_quantum: 1,
        per_unit: 1,
    };

    fn for_rate(amount: u64, window: Duration, burst: u64) -> Result<Self, QuotaError> {
        if amount == 0 {
            return Err(QuotaError::ZeroLimit);
        }
        if burst == 0 {
            return Err(QuotaError::ZeroBurst);
        }
        if window.is_zero() {
            return Err(QuotaError::ZeroWindow);
        }
        let inexact = QuotaError::Inexact {
            amount,
            window,
            burst,
        };
        let window_nanos = u64::try_from(window.as_nanos()).map_err(|_| inexact)?;
        QUANTA_NANOS
            .into_iter()
            .filter(|quantum_nanos| window_nanos % quantum_nanos == 0)
            .map(|quantum_nanos| {
                let quanta = window_nanos / quantum_nanos;
                let divisor = greatest_common_divisor(amount, quanta);
                Self {
                    quantum_nanos,
                    per_quantum: amount / divisor,
                    per_unit: quanta / divisor,
                }
            })
            .find(|scale| scale.fits(burst))
            .ok_or(inexact)
    }

    /// Whether every instant, and a full burst on top of it, stays within [`MAX_TICKS`].
    fn fits(&self, burst: u64) -> bool {
        // Buckets of requests that come at a booked time may be that much over.
        let end = Time::END.as_nanos() + nanos(GRACE);
        let end = u128::from(end.div_ceil(self.quantum_nanos)) * u128::from(self.per_quantum);
        let burst = u128::from(burst) * u128::from(self.per_unit);
        end.saturating_add(burst) <= u128::from(MAX_TICKS)
    }

    /// The instant in ticks, rounded down to this quota's clock.
    #[inline]
    pub(crate) fn ticks_at(&self, now: Time) -> u64 {
        let quanta = if self.quantum_nanos == 1 {
            now.as_nanos()
        } else {
            now.as_nanos() / self.quantum_nanos
        };
        // Up to `Time::END` it fits 62 bits: no other scale is accepted.
        quanta.wrapping_mul(self.per_quantum)
    }

    /// The instant at which this quota's clock first shows at least `ticks`.
    pub(crate) fn time_at(&self, ticks: u64) -> Time {
        let nanos = u128::from(ticks.div_ceil(self.per_quantum)) * u128::from(self.quantum_nanos);
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Whole ticks in a duration.
    pub(crate) fn ticks_in(&self, duration: Duration) -> u64 {
        let quanta = duration.as_nanos() / u128::from(self.quantum_nanos);
        let ticks = quanta * u128::from(self.per_quantum);
        u64::try_from(ticks).unwrap_or(MAX_TICKS).min(MAX_TICKS)
    }

    /// How long from `now` until this quota's clock shows at least `ticks`.
    pub(crate) fn wait_until(&self, ticks: u64, now: Time) -> Duration {
        let quanta = ticks.div_ceil(self.per_quantum);
        let nanos = u128::from(quanta) * u128::from(self.quantum_nanos);
        let wait = nanos.saturating_sub(u128::from(now.as_nanos()));
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Units in ticks, saturating at [`MAX_TICKS`].
    pub(crate) fn ticks_of(&self, units: u64) -> u64 {
        units.saturating_mul(self.per_unit).min(MAX_TICKS)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
