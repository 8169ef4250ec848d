use std::num::NonZeroU32;

use crate::meter::Meter;
use crate::{Budget, Name, Quota, Unit};

/// A named set of quotas, whom it applies to, and what it is counted per.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The name by which answers and logs speak of it.
    pub name: Name,
    /// Which requests it applies to.
    pub matches: Match,
    /// What has a bucket of its own.
    pub per: Per,
    /// What happens to requests that it refuses.
    pub mode: Mode,
    /// Amounts per window that refill steadily.
    pub quotas: Vec<(Unit, Quota)>,
    /// Amounts per calendar window.
    pub budgets: Vec<(Unit, Budget)>,
    /// The most requests that may run at the same time.
    pub concurrency: Option<NonZeroU32>,
}

/// What happens to requests that a policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They are refused.
    #[default]
    Enforce,
    /// They are admitted, and [`Limiter::observed`](crate::Limiter::observed) tells what would have happened. The policy
    /// counts only what it would have admitted, so that it shows what it would do if it were enforced.
    Observe,
}

/// Which requests a policy applies to; what is `None` matches all. The numbers are the ids that whoever owns the limiter
/// gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Match {
    /// One caller only.
    pub caller: Option<u32>,
    /// One team only.
    pub team: Option<u32>,
    /// One user only.
    pub user: Option<User>,
    /// One model only.
    pub model: Option<u32>,
    /// One route only.
    pub route: Option<u32>,
}

/// What a policy is counted per: each combination has buckets of its own. Nothing set: one bucket for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent kinds")]
pub struct Per {
    /// Each caller, that is each API key.
    pub caller: bool,
    /// Each team.
    pub team: bool,
    /// Each user. The policy does not apply to requests of which the user is not known.
    pub user: bool,
    /// Each model.
    pub model: bool,
    /// Each route.
    pub route: bool,
    /// Each address that requests come from.
    pub address: bool,
}

/// Whom and what a request is for. Ids are small numbers given out by whoever owns the limiter, not hashes: two subjects
/// can't collide.
// In this order, because a copy is written in pieces of 16 or 32 bytes: a load of several fields that spans two pieces waits
// for every cache miss before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Subject {
    /// The caller.
    pub caller: u32,
    /// The caller's team. A caller belongs to one team, always the same.
    pub team: u32,
    /// The model asked for.
    pub model: u32,
    /// The route that the request came by.
    pub route: u32,
    /// For whom the caller asks.
    pub user: User,
    /// Where it came from: an IPv4 address, or the first 64 bits of an IPv6 address. (Those whose first 32 bits are zero
    /// are reserved, so the two don't overlap.)
    pub address: u64,
}

/// The end user that a caller asks for, known by the first 96 bits of a cryptographic digest of its name: names can have
/// any length and number, and none of them has to be kept. That any two of a billion users are taken for one has odds of
/// less than 1 to 10^11; to find a name that is taken for a given one costs 2^96 digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct User(pub [u32; 3]);

impl User {
    /// The request says nothing of a user.
    pub const UNKNOWN: Self = Self([0; 3]);
}

impl Policy {
    /// Whether it has something to say about requests of this subject.
    #[must_use]
    pub fn applies_to(&self, subject: Subject) -> bool {
        self.matches.includes(&subject) && !(self.per.user && subject.user == User::UNKNOWN)
    }

    /// Whether it has levels that must outlive a restart: see [`Limiter::save`](crate::Limiter::save).
    #[must_use]
    pub fn is_durable(&self) -> bool {
        let mut quotas = self.quotas.iter();
        !self.budgets.is_empty() || quotas.any(|(unit, quota)| Meter::of_quota(0, *unit, quota).is_durable())
    }

    /// Whether the other decides alike. What the calendars of budgets know of the future makes no difference.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        let same_budgets = self.budgets.len() == other.budgets.len()
            && self
                .budgets
                .iter()
                .zip(&other.budgets)
                .all(|((unit, a), (other_unit, b))| {
                    unit == other_unit && a.limit() == b.limit() && a.calendar().counts_like(b.calendar())
                });
        let without_budgets = |policy: &Self| Self {
            budgets: Vec::new(),
            ..policy.clone()
        };
        same_budgets && without_budgets(self) == without_budgets(other)
    }
}

impl Match {
    pub(crate) fn includes(&self, subject: &Subject) -> bool {
        let Self {
            caller,
            team,
            user,
            model,
            route,
        } = *self;
        caller.is_none_or(|id| id == subject.caller)
            && team.is_none_or(|id| id == subject.team)
            && user.is_none_or(|user| user == subject.user)
            && model.is_none_or(|id| id == subject.model)
            && route.is_none_or(|id| id == subject.route)
    }
}
