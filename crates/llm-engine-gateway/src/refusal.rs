use std::time::Duration;

use llm_engine_admission::{Reason, Saturated};
use llm_engine_limit as limit;

/// We said no. Status, headers, body, log and metrics of the answer all come from this value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable word for programs.
    pub code: RefusalCode,
    /// One sentence for a person: what refused, its limit, how much was asked, when to come back.
    pub message: String,
    /// The policy that refused, the one with the longest wait if there are several.
    pub policy: Option<limit::Name>,
    /// That policy's limit.
    pub limit: Option<u64>,
    /// What the limit counts.
    pub counted: Option<limit::Counted>,
    /// When to come back. `None`: no wait would help.
    pub retry_after: Option<Duration>,
    /// Whether the request would be admitted at exactly that time, with nothing else happening.
    pub exact: bool,
    /// Whether that time is kept for the request.
    pub booked: bool,
}

/// Why we said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// A quota.
    RateLimited,
    /// The model is full.
    Saturated,
    /// A calendar budget is gone.
    BudgetExhausted,
    /// More than a quota ever admits.
    NeverFits,
    /// We are shutting down.
    Draining,
    /// Nothing can run the model at the moment.
    NoDeployment,
}

impl RefusalCode {
    /// The word in the answer's body and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Saturated => "saturated",
            Self::BudgetExhausted => "budget_exhausted",
            Self::NeverFits => "never_fits",
            Self::Draining => "draining",
            Self::NoDeployment => "no_deployment",
        }
    }

    /// The HTTP status, where the dialect of the route has no other.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            // The draft on RateLimit header fields would use 503 for reduced capacity; the published promise of this API
            // is 429.
            Self::RateLimited | Self::Saturated => 429,
            // The published example retries a 429 for ever.
            Self::BudgetExhausted => 402,
            Self::NeverFits => 400,
            Self::Draining | Self::NoDeployment => 503,
        }
    }
}

impl Refusal {
    /// The model is full, and who waits for it has waited long enough or would.
    pub(crate) fn saturated(model: &str, limit: usize, saturated: Saturated) -> Self {
        let Saturated { wait, booked, reason } = saturated;
        let about = if booked { "" } else { "about " };
        let why = match reason {
            Reason::Deadline => "; the request would wait beyond its deadline",
            Reason::EstimatedWait | Reason::Waited | Reason::QueueFull => "",
        };
        let message = format!(
            "The model {model} is working on as many requests as it can ({limit} at the same time){why}; try again in {about}{}.",
            Seconds(wait)
        );
        Self {
            booked,
            ..Self::come_back(RefusalCode::Saturated, message, wait)
        }
    }

    pub(crate) fn draining(retry_after: Duration) -> Self {
        let message = format!(
            "The server is shutting down; try again in about {}.",
            Seconds(retry_after)
        );
        Self::come_back(RefusalCode::Draining, message, retry_after)
    }

    pub(crate) fn no_deployment(model: &str, retry_after: Duration) -> Self {
        let message = format!(
            "Nothing can run the model {model} at the moment; try again in about {}.",
            Seconds(retry_after)
        );
        Self::come_back(RefusalCode::NoDeployment, message, retry_after)
    }

    fn come_back(code: RefusalCode, message: String, retry_after: Duration) -> Self {
        Self {
            code,
            message,
            policy: None,
            limit: None,
            counted: None,
            retry_after: Some(retry_after),
            exact: false,
            booked: false,
        }
    }
}

impl From<limit::Refusal> for Refusal {
    fn from(refusal: limit::Refusal) -> Self {
        match refusal {
            limit::Refusal::NeverFits(never) => Self {
                code: RefusalCode::NeverFits,
                message: format!(
                    "Policy {} admits at most {} at once and this request may need {}; ask for less.",
                    never.policy,
                    never.counted.units(never.burst),
                    never.counted.units(never.asked)
                ),
                policy: Some(never.policy),
                limit: Some(never.burst),
                counted: Some(never.counted),
                retry_after: None,
                exact: true,
                booked: false,
            },
            limit::Refusal::NotNow(not_now) => Self::not_now(not_now),
        }
    }
}

impl Refusal {
    fn not_now(not_now: limit::NotNow) -> Self {
        let reasons: Vec<String> = not_now.refused.iter().map(reason).collect();
        let reasons = reasons.join(", and ");
        // A budget that is gone outweighs everything else: until the last of them is back no wait helps.
        let budgets = not_now.refused.iter().filter(|refused| refused.is_budget());
        let budget = budgets.max_by_key(|refused| refused.wait);
        let decisive = budget.or_else(|| not_now.refused.iter().max_by_key(|refused| refused.wait));
        let policy = decisive.map(|refused| refused.policy);
        let limit = decisive.map(|refused| refused.limit);
        let counted = decisive.map(|refused| refused.counted);
        if let Some(budget) = budget {
            return Self {
                code: RefusalCode::BudgetExhausted,
                message: format!("{reasons}; it is there again in {}.", Seconds(budget.wait)),
                policy,
                limit,
                counted,
                retry_after: None,
                exact: true,
                booked: false,
            };
        }
        let about = if not_now.exact { "" } else { "about " };
        Self {
            code: RefusalCode::RateLimited,
            message: format!("{reasons}; try again in {about}{}.", Seconds(not_now.wait)),
            policy,
            limit,
            counted,
            retry_after: Some(not_now.wait),
            exact: not_now.exact,
            booked: not_now.booked,
        }
    }
}

fn reason(refused: &limit::Refused) -> String {
    let limit::Refused {
        policy,
        counted,
        limit,
        asked,
        remaining,
        wait: _,
    } = refused;
    let amount = counted.amount(*limit);
    // Of tokens and requests the number says it all; a dollar needs its sign.
    let units = |count: u64| match counted.unit() {
        Some(limit::Unit::Usd) => counted.units(count),
        _ => count.to_string(),
    };
    match counted {
        limit::Counted::PerWindow { .. } | limit::Counted::PerPeriod { .. } => {
            format!(
                "Policy {policy} allows {amount}, this request asks for {} and {} are left",
                units(*asked),
                units(*remaining)
            )
        }
        limit::Counted::Concurrency => {
            format!("Policy {policy} allows {amount}, and that many are running")
        }
    }
}

/// A wait as a program reads it: whole milliseconds, rounded up, so that who waits that long is not early.
#[must_use]
pub fn milliseconds_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A wait as a person reads it: rounded up to a tenth of a second, longer ones to a second.
pub(crate) struct Seconds(pub(crate) Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 > Duration::from_secs(120) {
            let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
            return humantime::format_duration(Duration::from_secs(seconds)).fmt(f);
        }
        let tenths = self.0.as_nanos().div_ceil(100_000_000);
        write!(f, "{}.{} s", tenths / 10, tenths % 10)
    }
}
