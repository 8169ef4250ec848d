use std::fmt;
use std::time::Duration;

use crate::{Name, Period, Unit};

/// Why a request was not admitted. Nothing was reserved and no level has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Waiting would not help.
    #[error(transparent)]
    NeverFits(NeverFits),
    /// It can be admitted later.
    #[error(transparent)]
    NotNow(NotNow),
}

/// The request asks for more than a bucket of the policy ever holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy} admits at most {} at once; the request may need {asked}", .counted.units(*.burst))]
pub struct NeverFits {
    /// The policy.
    pub policy: Name,
    /// What is counted.
    pub counted: Counted,
    /// How much the request asks for.
    pub asked: u64,
    /// The most that the bucket holds.
    pub burst: u64,
}

/// The request must wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by {} of the policies; the wait is {wait:?}", .refused.len())]
pub struct NotNow {
    /// The longest wait of the policies that refused.
    pub wait: Duration,
    /// Whether the request would be admitted at exactly that time, with nothing else happening.
    pub exact: bool,
    /// Whether that time is kept for the request.
    pub booked: bool,
    /// Whether the request came at the time that was kept for it, and has another, before everybody else's, because it could
    /// not be admitted: whoever was before it came a little late.
    pub is_next: bool,
    /// Every quota that refused.
    pub refused: Vec<Refused>,
}

/// One quota that refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its policy.
    pub policy: Name,
    /// What it counts.
    pub counted: Counted,
    /// The configured limit.
    pub limit: u64,
    /// How much was asked for.
    pub asked: u64,
    /// How much was there.
    pub remaining: u64,
    /// How long until it would admit the request.
    pub wait: Duration,
}

/// What is counted, and over which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Units per window.
    PerWindow {
        /// The unit.
        unit: Unit,
        /// The window.
        window: Duration,
    },
    /// Units per calendar window.
    PerPeriod {
        /// The unit.
        unit: Unit,
        /// The kind of window.
        period: Period,
    },
    /// Requests at the same time.
    Concurrency,
}

/// How a quota stands for one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Its policy.
    pub policy: Name,
    /// What it counts.
    pub counted: Counted,
    /// The configured limit.
    pub limit: u64,
    /// How much could be admitted now.
    pub remaining: u64,
    /// How long until everything is there again, if nothing more is taken. Zero for concurrency, where nobody knows.
    pub full_in: Duration,
}

impl Refusal {
    /// Whether the request came at the time that was kept for it, and is the next: see [`NotNow::is_next`].
    #[must_use]
    pub fn is_next(&self) -> bool {
        matches!(self, Self::NotNow(not_now) if not_now.is_next)
    }

    /// Every quota that refused.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        match self {
            Self::NeverFits(never) => vec![never.clone().into()],
            Self::NotNow(not_now) => not_now.refused.clone(),
        }
    }
}

impl Refused {
    /// Whether it counts per calendar window, so that nothing comes back before that turns.
    #[must_use]
    pub fn is_budget(&self) -> bool {
        matches!(self.counted, Counted::PerPeriod { .. })
    }
}

impl From<NeverFits> for Refused {
    fn from(never: NeverFits) -> Self {
        Self {
            policy: never.policy,
            counted: never.counted,
            limit: never.burst,
            asked: never.asked,
            remaining: 0,
            wait: Duration::MAX,
        }
    }
}

impl NotNow {
    pub(crate) fn new(refused: Vec<Refused>) -> Self {
        let waits = refused.iter().map(|refused| refused.wait);
        let is_exact = |refused: &Refused| refused.counted != Counted::Concurrency;
        Self {
            wait: waits.max().unwrap_or_default(),
            exact: refused.iter().all(is_exact),
            booked: false,
            is_next: false,
            refused,
        }
    }
}

impl Counted {
    /// The unit, if it is an amount.
    #[must_use]
    pub fn unit(self) -> Option<Unit> {
        match self {
            Self::PerWindow { unit, .. } | Self::PerPeriod { unit, .. } => Some(unit),
            Self::Concurrency => None,
        }
    }

    /// So many of it in words: `1 request`, `3 output tokens`.
    #[must_use]
    pub fn units(self, count: u64) -> String {
        self.unit().unwrap_or(Unit::Requests).amount(count)
    }

    /// A limit in words: `60 requests per minute`, `1 request at the same time`.
    #[must_use]
    pub fn amount(self, limit: u64) -> String {
        match self {
            Self::PerWindow { unit, window } => format!("{} per {}", unit.amount(limit), Words(window)),
            Self::PerPeriod { unit, period } => {
                format!("{} per calendar {}", unit.amount(limit), period.word())
            }
            Self::Concurrency => format!("{} at the same time", Unit::Requests.amount(limit)),
        }
    }
}

/// A duration as a person says it: `minute`, `30 seconds`, `1.5 seconds`.
struct Words(Duration);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
        let seconds = self.0.as_secs();
        let whole = NAMES
            .iter()
            .find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
        match whole {
            Some((length, name)) if self.0.subsec_nanos() == 0 => match seconds / length {
                1 => f.write_str(name),
                count => write!(f, "{count} {name}s"),
            },
            _ => write!(f, "{} seconds", self.0.as_secs_f64()),
        }
    }
}
