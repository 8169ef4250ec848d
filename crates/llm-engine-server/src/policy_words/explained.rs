use std::fmt;
use std::time::Duration;

use llm_engine_gateway::{BudgetSetup, Counted, GRACE, Mode, PolicySetup, Quota, Unit};
use serde::Serialize;

use super::{applies_to, counted_for, limits};

/// What a policy means to who is limited by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The policy.
    pub name: String,
    /// Which requests it is for.
    pub applies_to: String,
    /// What has an amount of its own.
    pub counted_for: String,
    /// Its limits.
    pub limits: Vec<Limit>,
    /// What who is refused by it sees.
    pub refused: String,
}

/// One of its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The limit, such as `60 requests per minute`.
    pub limit: String,
    /// How fast it can be used, and how it comes back.
    pub pace: String,
    /// The most that can be used of it in one window.
    pub worst: String,
    /// That as a number; money in nano-dollars.
    pub worst_amount: u64,
}

/// A policy in words.
#[must_use]
pub fn explained(policy: &PolicySetup) -> Explained {
    let requests = match applies_to(&policy.matches) {
        all if all.is_empty() => "every request".to_owned(),
        some => format!("requests of {}", some.join(", and ")),
    };
    let amounts = limits(policy).into_iter();
    let quotas = policy.quotas.iter().map(|(unit, quota)| of_quota(*unit, quota));
    let budgets = policy.budgets.iter().map(of_budget);
    let concurrency = policy.concurrency.iter().map(|most| {
        (
            "a place is taken until the last byte of the answer".to_owned(),
            Counted::Concurrency.amount(most.get().into()),
            most.get().into(),
        )
    });
    let details = quotas.chain(budgets).chain(concurrency);
    let limits = amounts
        .zip(details)
        .map(|(limit, (pace, worst, worst_amount))| Limit {
            limit,
            pace,
            worst,
            worst_amount,
        });
    Explained {
        name: policy.name.clone(),
        applies_to: requests,
        counted_for: counted_for(policy.per),
        limits: limits.collect(),
        refused: refused(policy),
    }
}

/// Its pace, and the most in one window, in words and as a number.
fn of_quota(unit: Unit, quota: &Quota) -> (String, String, u64) {
    let (limit, burst) = (quota.limit(), quota.burst());
    let refills = if quota.is_strict() { limit - burst } else { limit };
    let pace = format!(
        "{} at once; {} come back every {}",
        unit.amount(burst),
        unit.amount(refills),
        humantime::format_duration(quota.window())
    );
    if quota.is_strict() {
        let words = format!(
            "{} in any window, wherever it begins (strict)",
            unit.amount(limit)
        );
        return (pace, words, limit);
    }
    let late = share(refills, GRACE, quota.window());
    let worst = burst.saturating_add(limit).saturating_add(late);
    let words = format!(
        "{} in the worst window: what is there at once, what comes back in it, and {} for who comes late for a booked time",
        unit.amount(worst),
        unit.amount(late)
    );
    (pace, words, worst)
}

/// What refills in a part of the window, rounded up.
fn share(refills: u64, part: Duration, window: Duration) -> u64 {
    let refilled = u128::from(refills) * part.as_nanos();
    u64::try_from(refilled.div_ceil(window.as_nanos().max(1))).unwrap_or(u64::MAX)
}

fn of_budget(budget: &BudgetSetup) -> (String, String, u64) {
    let BudgetSetup {
        unit,
        limit,
        period: _,
        zone: _,
    } = budget;
    let pace = "all of it at any time; nothing comes back until the calendar turns".to_owned();
    (pace, format!("{}, by the calendar", unit.amount(*limit)), *limit)
}

fn refused(policy: &PolicySetup) -> String {
    if policy.mode == Mode::Observe {
        return "nobody is refused: log, metrics and `llm-engine explain` say who would be".to_owned();
    }
    let mut sentences = Vec::new();
    if !policy.hold.is_zero() {
        let hold = humantime::format_duration(policy.hold);
        sentences.push(format!("a wait in the server, if {hold} are enough"));
    }
    if !policy.quotas.is_empty() {
        sentences.push("429 rate_limited, with a Retry-After that is kept for who comes then".to_owned());
    }
    if policy.concurrency.is_some() {
        sentences.push("429 rate_limited, with an estimate when a place is free".to_owned());
    }
    if !policy.budgets.is_empty() {
        let budget = "402 budget_exhausted (429 insufficient_quota on OpenAI's routes), without Retry-After";
        sentences.push(budget.to_owned());
    }
    // One request is always one.
    let sized = policy.quotas.iter().filter(|(unit, _)| *unit != Unit::Requests);
    let sizes: Vec<String> = sized.map(|(unit, quota)| unit.amount(quota.burst())).collect();
    if !sizes.is_empty() {
        sentences.push(format!(
            "400 never_fits for a request of more than {}",
            sizes.join(" or ")
        ));
    }
    sentences.join("; ")
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            applies_to,
            counted_for,
            limits,
            refused,
        } = self;
        writeln!(f, "{name}: {applies_to}, {counted_for}")?;
        for Limit {
            limit, pace, worst, ..
        } in limits
        {
            writeln!(f, "  {limit}\n    {pace}\n    at most {worst}")?;
        }
        write!(f, "  beyond that: {refused}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(policy: &PolicySetup) -> Limit {
        let [limit] = explained(policy).limits.try_into().unwrap();
        limit
    }

    fn policy(quota: Quota) -> PolicySetup {
        PolicySetup {
            name: "p".to_owned(),
            quotas: vec![(Unit::Requests, quota)],
            ..PolicySetup::default()
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_worst_window_has_the_burst_what_refills_and_three_seconds_more() {
        let quota = Quota::with_burst(60, MINUTE, 10).unwrap();
        assert_eq!(only(&policy(quota)).worst_amount, 10 + 60 + 3);
    }

    #[test]
    fn of_a_strict_quota_the_worst_window_is_the_limit() {
        let quota = Quota::strict(60, MINUTE, 10).unwrap();
        let limit = only(&policy(quota));
        assert_eq!(limit.worst_amount, 60);
        assert_eq!(limit.pace, "10 requests at once; 50 requests come back every 1m");
    }

    #[test]
    fn every_limit_is_explained() {
        let mut policy = policy(Quota::new(5, MINUTE).unwrap());
        policy.concurrency = std::num::NonZeroU32::new(3);
        assert_eq!(explained(&policy).limits.len(), 2);
        assert!(
            explained(&policy)
                .to_string()
                .contains("429 rate_limited, with an estimate when a place is free")
        );
    }
}
