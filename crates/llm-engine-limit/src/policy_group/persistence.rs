use std::sync::Arc;
use std::time::Duration;

use super::PolicyGroup;
use crate::bookings::Bookings;
use crate::bucket::Bucket;
use crate::meter::Meter;
use crate::saved::{Saved, SavedLevel};
use crate::{Policy, Time};

/// How levels outlive a restart of the process, and a change of the policies.
impl PolicyGroup {
    /// Whether these are its policies. What a calendar knows of the future makes no difference.
    pub(crate) fn is_of(&self, policies: &[Policy]) -> bool {
        self.policies.len() == policies.len()
            && self
                .policies
                .iter()
                .zip(policies)
                .all(|(old, new)| old.counts_like(new))
    }

    /// Takes over what these groups know of policies of the same name and partition: what is missing stays missing, up to
    /// the new burst; a debt stays a debt; what runs, runs.
    pub(crate) fn inherit(&mut self, now: Time, old: &[Self]) {
        let mut place = 0;
        for policy in self.policies.clone() {
            let meters = place..place + policy.quotas.len() + policy.budgets.len();
            place = meters.end;
            let predecessor = old
                .iter()
                .find_map(|group| Some((group, group.meters_of(&policy.name)?)));
            let Some((group, old_meters)) =
                predecessor.filter(|(group, _)| group.partition == self.partition)
            else {
                continue;
            };
            for subject in group.buckets.subjects() {
                let Some(old_row) = group
                    .buckets
                    .find(subject)
                    .filter(|row| group.buckets.get(*row).is_some())
                else {
                    continue;
                };
                for new in meters.clone() {
                    let old = old_meters.iter().find(|old| old.counts_like(&self.meters[new]));
                    let Some(old) = old else { continue };
                    let bucket = group
                        .row_buckets(Some(old_row))
                        .nth(old.place)
                        .unwrap_or(Bucket::FULL);
                    let missing = old.missing(bucket, now);
                    let debt = missing.saturating_sub(old.burst());
                    self.charge(
                        now,
                        subject,
                        new,
                        missing.min(self.meters[new].burst()).saturating_add(debt),
                    );
                }
            }
            if policy.concurrency.is_some() && group.running.is_limited() {
                self.running_from = self.running_from.min(group.running_from);
                for (old_row, count) in group.running.rows() {
                    let row = self.row(now, group.buckets.subject_of(old_row));
                    self.running.take_over(row, count);
                }
            }
        }
    }

    /// Takes over the bookings that concern it.
    pub(crate) fn inherit_bookings(&mut self, now: Time, bookings: &Bookings) {
        for (id, booking) in bookings.all() {
            if !self.observes() && self.applies_to(booking.subject) {
                self.book(now, id, &booking);
                if bookings.is_overdue(id, now) {
                    self.become_due(id, &booking);
                }
            }
        }
    }

    /// Appends what has changed since the last time and must outlive a restart.
    pub(crate) fn save(&mut self, now: Time, saved: &mut Vec<Saved>) {
        let Some(dirty) = &mut self.dirty else { return };
        let rows: Vec<u32> = dirty.drain().collect();
        for row in rows.into_iter().filter(|row| !self.buckets.is_overflow(*row)) {
            let subject = self.buckets.subject_of(row);
            let mut meters = self.meters.iter().zip(self.row_buckets(Some(row)));
            for policy in &self.policies {
                let own = meters.by_ref().take(policy.quotas.len() + policy.budgets.len());
                saved.extend(
                    own.filter(|(meter, _)| meter.is_durable())
                        .map(|(meter, bucket)| Saved {
                            policy: Arc::clone(&policy.name),
                            counted: meter.counted(),
                            subject,
                            level: meter.saved(bucket, now),
                        }),
                );
            }
        }
    }

    /// Takes from a bucket what had been taken `age` ago, if it is one of this group's.
    pub(crate) fn restore(&mut self, now: Time, saved: &Saved, age: Duration) {
        let Some(meters) = self.meters_of(&saved.policy) else {
            return;
        };
        let Some(meter) = meters.iter().find(|meter| meter.counted() == saved.counted) else {
            return;
        };
        let place = meter.place;
        let units = match saved.level {
            SavedLevel::Missing { units } => meter.missing_after(units, age),
            SavedLevel::Spent { window, units } if meter.calendar_window(now) == Some(window) => units,
            SavedLevel::Spent { .. } => 0,
        };
        self.charge(now, saved.subject, place, units);
    }

    fn charge(&mut self, now: Time, subject: crate::Subject, place: usize, units: u64) {
        if units > 0 {
            let row = self.row(now, subject);
            let meter = &self.meters[place];
            let (ticks, charge) = (meter.ticks_at(now), meter.ticks_of_units(units));
            self.buckets.row_mut(row)[place].charge(ticks, charge);
            self.changed(row);
        }
    }

    /// The quotas and budgets of the policy of this name.
    fn meters_of(&self, name: &str) -> Option<&[Meter]> {
        let mut first = 0;
        for policy in &self.policies {
            let end = first + policy.quotas.len() + policy.budgets.len();
            if *policy.name == *name {
                return Some(&self.meters[first..end]);
            }
            first = end;
        }
        None
    }
}
