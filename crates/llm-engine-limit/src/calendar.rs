use std::sync::Arc;

use crate::Time;

/// A kind of calendar window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first day of a month to that of the next.
    Month,
}

impl Period {
    /// The word that sentences use: `day`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// When the windows of a calendar begin, on the clock that the limiter is given. Time zones, leap days and clock changes
/// are the business of whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    period: Period,
    /// The IANA name of the time zone: what makes two calendars of one period different.
    zone: Arc<str>,
    /// The number of the window that is running at [`Time::ZERO`], counted from a day in the distant past.
    first: u32,
    /// When each later window begins, in ascending order.
    turns: Arc<[Time]>,
}

impl Calendar {
    /// The calendar whose window number `first` is running at [`Time::ZERO`], and whose next windows begin at `turns`,
    /// which must ascend. After the last of them no further window begins: give more before that
    /// ([`Limiter::follow`](crate::Limiter::follow)).
    #[must_use]
    pub fn new(period: Period, zone: &str, first: u32, turns: Vec<Time>) -> Self {
        debug_assert!(turns.is_sorted());
        Self {
            period,
            zone: zone.into(),
            first,
            turns: turns.into(),
        }
    }

    /// Its kind of window.
    #[must_use]
    pub fn period(&self) -> Period {
        self.period
    }

    /// The IANA name of its time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// The number of the window that is running.
    #[must_use]
    pub fn window_at(&self, now: Time) -> u32 {
        let turned = self.turns.partition_point(|turn| *turn <= now);
        self.first
            .saturating_add(u32::try_from(turned).unwrap_or(u32::MAX))
    }

    /// When the next window begins; [`Time::END`] if that is not known.
    #[must_use]
    pub fn next_turn(&self, now: Time) -> Time {
        let turned = self.turns.partition_point(|turn| *turn <= now);
        self.turns.get(turned).copied().unwrap_or(Time::END)
    }

    /// Whether the other counts the same windows, perhaps from a better knowledge of the clock.
    #[must_use]
    pub fn counts_like(&self, other: &Self) -> bool {
        self.period == other.period && self.zone == other.zone
    }
}
