use std::num::NonZeroU32;
use std::sync::Arc;

use crate::{Quota, Unit};

/// A named set of quotas, whom it applies to, and what it is counted per.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The name by which answers and logs speak of it.
    pub name: Arc<str>,
    /// Which requests it applies to.
    pub matches: Match,
    /// What has a bucket of its own.
    pub per: Per,
    /// Amounts per window.
    pub quotas: Vec<(Unit, Quota)>,
    /// The most requests that may run at the same time.
    pub concurrency: Option<NonZeroU32>,
}

/// Which requests a policy applies to; what is `None` matches all. The numbers are the ids that whoever owns the limiter
/// gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Match {
    /// One caller only.
    pub caller: Option<u32>,
    /// One team only.
    pub team: Option<u32>,
    /// One model only.
    pub model: Option<u32>,
}

/// What a policy is counted per: each combination has buckets of its own. Nothing set: one bucket for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Per {
    /// Each caller, that is each API key.
    pub caller: bool,
    /// Each team.
    pub team: bool,
    /// Each model.
    pub model: bool,
}

/// Whom and what a request is for. Ids are small numbers given out by whoever owns the limiter, not hashes: two subjects
/// can't collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The caller.
    pub caller: u32,
    /// The caller's team. A caller belongs to one team, always the same.
    pub team: u32,
    /// The model asked for.
    pub model: u32,
}

impl Match {
    pub(crate) fn includes(self, subject: Subject) -> bool {
        let Self { caller, team, model } = self;
        caller.is_none_or(|id| id == subject.caller)
            && team.is_none_or(|id| id == subject.team)
            && model.is_none_or(|id| id == subject.model)
    }
}
