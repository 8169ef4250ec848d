//! A history as each single bucket sees it.

use llm_engine_limit::{Policy, Quota, Subject};

use crate::oracle::counted;
use crate::trace::{Event, Run};

/// What tells the buckets of a policy apart: caller, team, model, where they matter.
pub(crate) type Key = [Option<u32>; 3];

/// Policy, quota and key.
type Bucket = (usize, usize, Key);

/// What happened to one bucket.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) quota: Quota,
    /// Someone whom it counts, and the position of its level in the answer of [`Limiter::levels`].
    pub(crate) subject: Subject,
    pub(crate) position: usize,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// The true cost, as far as it was reserved; while the request is open, all that was reserved.
    Admitted { at: u64, units: u64 },
    /// What was used beyond the reservation.
    Overrun { at: u64, units: u64 },
}

impl Run {
    /// One for every bucket that any admitted request has touched.
    pub(crate) fn ledgers(&self) -> Vec<Ledger> {
        let mut ledgers: Vec<(Bucket, Ledger)> = Vec::new();
        for event in &self.events {
            let (Event::Admitted { request, .. } | Event::Settled { request, .. }) = event;
            let request = &self.requests[*request];
            let mut position = 0;
            for (policy_index, policy) in self.policies.iter().enumerate() {
                if !applies(policy, request.subject) {
                    continue;
                }
                for (quota_index, (unit, quota)) in policy.quotas.iter().enumerate() {
                    let bucket = (policy_index, quota_index, partition(policy, request.subject));
                    let reserved = counted(*unit, request.cost);
                    let used = request.usage.map_or(reserved, |usage| counted(*unit, usage));
                    let entry = match event {
                        Event::Admitted { at, .. } => Entry::Admitted {
                            at: *at,
                            units: used.min(reserved),
                        },
                        Event::Settled { at, .. } => Entry::Overrun {
                            at: *at,
                            units: used.saturating_sub(reserved),
                        },
                    };
                    match ledgers.iter_mut().find(|(key, _)| *key == bucket) {
                        Some((_, ledger)) => ledger.entries.push(entry),
                        None => ledgers.push((
                            bucket,
                            Ledger {
                                quota: *quota,
                                subject: request.subject,
                                position,
                                entries: vec![entry],
                            },
                        )),
                    }
                    position += 1;
                }
                position += usize::from(policy.concurrency.is_some());
            }
        }
        ledgers.into_iter().map(|(_, ledger)| ledger).collect()
    }
}

pub(crate) fn applies(policy: &Policy, subject: Subject) -> bool {
    let wanted = [policy.matches.caller, policy.matches.team, policy.matches.model];
    let is = [subject.caller, subject.team, subject.model];
    wanted
        .iter()
        .zip(is)
        .all(|(wanted, is)| wanted.is_none() || *wanted == Some(is))
}

pub(crate) fn partition(policy: &Policy, subject: Subject) -> Key {
    [
        policy.per.caller.then_some(subject.caller),
        policy.per.team.then_some(subject.team),
        policy.per.model.then_some(subject.model),
    ]
}
