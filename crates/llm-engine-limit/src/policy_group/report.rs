use std::sync::Arc;
use std::time::Duration;

use super::PolicyGroup;
use crate::bucket::Bucket;
use crate::cost::Amounts;
use crate::{Counted, Level, NeverFits, Policy, Quota, Refusal, Refused, Subject, Time, Unit};

/// What a policy group says of itself: why it refuses, and how its quotas stand. Nothing here is on the way of a request
/// that is admitted.
impl PolicyGroup {
    /// Appends every quota that refuses to `refused`.
    pub(crate) fn check(
        &self,
        given: Time,
        now: Time,
        subject: Subject,
        cost: &Amounts,
        refused: &mut Vec<Refused>,
    ) -> Result<(), Refusal> {
        let key = self.buckets.key(subject);
        for (policy, buckets) in self.policies(subject) {
            for ((unit, quota), bucket) in policy.quotas.iter().zip(buckets) {
                let asked = cost.of(*unit);
                if asked > quota.burst() {
                    return Err(Refusal::NeverFits(NeverFits {
                        policy: Arc::clone(&policy.name),
                        unit: *unit,
                        asked,
                        burst: quota.burst(),
                    }));
                }
                let ticks = quota.scale().ticks_at(now);
                let full_again = bucket.tat().max(ticks) + quota.scale().ticks_of(asked);
                if asked > 0 && full_again > ticks + quota.burst_ticks() {
                    refused.push(Refused {
                        policy: Arc::clone(&policy.name),
                        counted: per_window(*unit, quota),
                        limit: quota.limit(),
                        asked,
                        remaining: remaining(bucket, quota, ticks),
                        wait: quota.scale().wait_until(full_again - quota.burst_ticks(), given),
                    });
                }
            }
            if let Some(maximum) = policy.concurrency
                && self.running.count(key) >= maximum.get()
            {
                refused.push(Refused {
                    policy: Arc::clone(&policy.name),
                    counted: Counted::Concurrency,
                    limit: maximum.get().into(),
                    asked: 1,
                    remaining: 0,
                    wait: self.running.wait_for_place(maximum),
                });
            }
        }
        Ok(())
    }

    /// Appends how every quota stands for the subject.
    pub(crate) fn levels(&self, now: Time, subject: Subject, levels: &mut Vec<Level>) {
        let running = self.running.count(self.buckets.key(subject));
        for (policy, buckets) in self.policies(subject) {
            let quotas = policy.quotas.iter().zip(buckets);
            levels.extend(quotas.map(|((unit, quota), bucket)| Level {
                policy: Arc::clone(&policy.name),
                counted: per_window(*unit, quota),
                limit: quota.limit(),
                remaining: remaining(bucket, quota, quota.scale().ticks_at(now)),
                full_in: quota.scale().wait_until(bucket.tat(), now),
            }));
            levels.extend(policy.concurrency.map(|maximum| Level {
                policy: Arc::clone(&policy.name),
                counted: Counted::Concurrency,
                limit: maximum.get().into(),
                remaining: maximum.get().saturating_sub(running).into(),
                full_in: Duration::ZERO,
            }));
        }
    }

    /// Each policy with the subject's buckets, one for each of its quotas.
    fn policies(&self, subject: Subject) -> impl Iterator<Item = (&Policy, impl Iterator<Item = Bucket>)> {
        let row = self.buckets.get(subject);
        let first_buckets = self.policies.iter().scan(0, |next, policy| {
            let first = *next;
            *next += policy.quotas.len();
            Some(first)
        });
        self.policies
            .iter()
            .zip(first_buckets)
            .map(move |(policy, first)| {
                let buckets = (first..).map(move |index| row.map_or(Bucket::FULL, |row| row[index]));
                (policy, buckets)
            })
    }
}

fn per_window(unit: Unit, quota: &Quota) -> Counted {
    Counted::PerWindow {
        unit,
        window: quota.window(),
    }
}

/// Whole units that could be taken at `now` ticks.
fn remaining(bucket: Bucket, quota: &Quota, now: u64) -> u64 {
    quota.burst_ticks().saturating_sub(bucket.level(now)) / quota.scale().per_unit
}
