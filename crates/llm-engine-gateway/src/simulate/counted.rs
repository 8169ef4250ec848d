use std::collections::{BTreeMap, HashMap};

use llm_engine_limit::{Subject, Time};

use super::quotas::Quotas;
use super::{BookingCounts, Tally, Timeline};
use crate::PolicySetup;

/// What is counted while it runs.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) total: Tally,
    pub(super) policies: Vec<Tally>,
    /// By the numbers of callers.
    pub(super) callers: Vec<CallerTally>,
    /// By the numbers of models that are not in the setup.
    pub(super) unknown_models: BTreeMap<u32, u64>,
    pub(super) bookings: BookingCounts,
    pub(super) quotas: Quotas,
    pub(super) timeline: Timeline,
    /// All whom and what there were requests for, by caller, model and route.
    pub(super) subjects: HashMap<(u32, u32, u32), Subject>,
    pub(super) last_decision: Time,
}

#[derive(Debug, Clone, Default)]
pub(super) struct CallerTally {
    pub(super) tally: Tally,
    /// Refused calls by policy.
    pub(super) refused_by: Vec<u64>,
}

impl Counted {
    pub(super) fn new(policies: &[PolicySetup]) -> Self {
        let quotas = Quotas::new(policies);
        Self {
            total: Tally::default(),
            policies: vec![Tally::default(); policies.len()],
            callers: Vec::new(),
            unknown_models: BTreeMap::new(),
            bookings: BookingCounts::default(),
            timeline: Timeline::new(quotas.len()),
            quotas,
            subjects: HashMap::new(),
            last_decision: Time::ZERO,
        }
    }

    /// For the request as a whole: of all, of its caller, and of these policies.
    pub(super) fn tally(&mut self, caller: u32, policies: u64, mut change: impl FnMut(&mut Tally)) {
        change(&mut self.total);
        change(&mut self.callers[caller as usize].tally);
        each_bit(policies, |index| change(&mut self.policies[index]));
    }

    /// For what some policies did, if there are any.
    pub(super) fn tally_by(&mut self, caller: u32, policies: u64, change: impl FnMut(&mut Tally)) {
        if policies != 0 {
            self.tally(caller, policies, change);
        }
    }

    pub(super) fn refused_by(&mut self, caller: u32, policies: u64) {
        let counts = &mut self.callers[caller as usize].refused_by;
        counts.resize(self.policies.len(), 0);
        each_bit(policies, |index| counts[index] += 1);
    }
}

/// Calls for each policy of these bits.
pub(super) fn each_bit(bits: u64, mut each: impl FnMut(usize)) {
    let mut rest = bits;
    while rest != 0 {
        each(rest.trailing_zeros() as usize);
        rest &= rest - 1;
    }
}
