//! A history as each single bucket sees it.

use llm_engine_limit::{Policy, Subject, User};

use crate::oracle::counted;
use crate::shapes::{Limit, limits_of};
use crate::trace::{Event, Run};

/// What tells the buckets of a policy apart: caller, team, model, route, address and user, where they matter.
pub(crate) type Key = ([Option<u32>; 4], Option<u64>, Option<User>);

/// Policy, quota and key.
type Bucket = (usize, usize, Key);

/// What happened to one bucket.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) limit: Limit,
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
                for (quota_index, (unit, limit)) in limits_of(policy).enumerate() {
                    let bucket = (policy_index, quota_index, partition(policy, request.subject));
                    let reserved = counted(unit, request.cost);
                    let used = request.usage.map_or(reserved, |usage| counted(unit, usage));
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
                                limit,
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
    let matches = policy.matches;
    let ids = [
        (matches.caller, subject.caller),
        (matches.team, subject.team),
        (matches.model, subject.model),
        (matches.route, subject.route),
    ];
    ids.iter()
        .all(|(wanted, is)| wanted.is_none() || *wanted == Some(*is))
        && (matches.user.is_none() || matches.user == Some(subject.user))
        && (!policy.per.user || subject.user != User::UNKNOWN)
}

pub(crate) fn partition(policy: &Policy, subject: Subject) -> Key {
    let per = policy.per;
    let ids = [
        per.caller.then_some(subject.caller),
        per.team.then_some(subject.team),
        per.model.then_some(subject.model),
        per.route.then_some(subject.route),
    ];
    (
        ids,
        per.address.then_some(subject.address),
        per.user.then_some(subject.user),
    )
}
