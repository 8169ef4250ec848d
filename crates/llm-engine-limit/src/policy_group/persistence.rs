use std::time::Duration;

use super::PolicyGroup;
use crate::bookings::Bookings;
use crate::bucket::Bucket;
use crate::meter::Meter;
use crate::partition::Partition;
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

    /// Whether what runs in it runs on in a group of these policies, which then has its bit.
    pub(crate) fn runs_on_in(&self, policies: &[Policy]) -> bool {
        let is_limited =
            |policy: &Policy| policy.concurrency.is_some() && self.meters_of(&policy.name).is_some();
        self.running.is_limited()
            && self.matches == policies[0].matches
            && self.partition == Partition::of(policies[0].per)
            && policies.iter().any(is_limited)
    }

    /// Takes over what these groups know of policies of the same name and partition: what is missing stays missing, up to
    /// the new burst; a debt stays a debt; what runs, runs.
    pub(crate) fn inherit(&mut self, now: Time, old: &[Self]) {
        let places = self.places();
        let places: Vec<_> = places.map(|(policy, places)| (policy.name, places)).collect();
        for (name, meters) in places {
            let mut known = old
                .iter()
                .filter_map(|group| Some((group, group.meters_of(&name)?)));
            if let Some((group, old_meters)) = known.find(|(group, _)| group.partition == self.partition) {
                for new in meters {
                    self.inherit_levels(now, new, group, old_meters);
                }
            }
        }
        let policies = &self.policies;
        let running = old.iter().find(|group| group.runs_on_in(policies));
        if let Some(group) = running.filter(|group| group.bit == self.bit) {
            self.running_from = group.running_from;
            for (old_row, count) in group.running.rows() {
                let row = self.row_like(now, group, old_row);
                self.running.take_over(row, count);
            }
        }
    }

    fn inherit_levels(&mut self, now: Time, place: usize, group: &Self, old_meters: &[Meter]) {
        let meter = &self.meters[place];
        let same = old_meters.iter().find(|old| old.counted() == meter.counted());
        let Some(old) = same.or_else(|| old_meters.iter().find(|old| old.counts_like(meter))) else {
            return;
        };
        for old_row in group.buckets.rows() {
            let bucket = group
                .buckets
                .get(old_row)
                .map_or(Bucket::FULL, |row| row[old.place]);
            let ticks = self.meters[place].inherited(old, bucket, now);
            if ticks > 0 {
                let row = self.row_like(now, group, old_row);
                self.charge(now, row, place, ticks);
            }
        }
    }

    /// The row for the key that has this one in another group of the same partition.
    fn row_like(&mut self, now: Time, other: &Self, row: u32) -> u32 {
        if other.buckets.is_overflow(row) {
            row
        } else {
            self.row(now, &other.buckets.subject_of(row))
        }
    }

    /// Takes over the bookings that concern it.
    pub(crate) fn inherit_bookings(&mut self, now: Time, bookings: &Bookings) {
        for (id, booking) in bookings.all() {
            if self.refuses_some_of(&booking.subject) && booking.is_claim {
                self.claim(now, id, &booking);
            } else if self.refuses_some_of(&booking.subject) {
                self.book(now, id, &booking);
                if bookings.is_due(id, now) {
                    self.become_due(id, &booking);
                }
            }
        }
    }

    /// From here on rows that change are left to the next time.
    pub(crate) fn begin_saving(&mut self) {
        let left = &mut self.saving;
        self.dirty.extend(left);
        self.saving = std::mem::take(&mut self.dirty).into_iter();
    }

    /// Appends how the next rows that have changed stand, if it must outlive a restart: up to so many. Returns how many
    /// there were.
    pub(crate) fn save_next(&mut self, now: Time, most: usize, saved: &mut Vec<Saved>) -> usize {
        let rows: Vec<u32> = self.saving.by_ref().take(most).collect();
        let own_rows = rows.iter().filter(|row| !self.buckets.is_overflow(**row));
        for row in own_rows {
            let subject = self.buckets.subject_of(*row);
            for (policy, own) in self.policies_with(Some(*row)) {
                saved.extend(
                    own.filter(|(meter, bucket)| meter.must_be_saved(*bucket, now))
                        .map(|(meter, bucket)| Saved {
                            policy: policy.name,
                            counted: meter.counted(),
                            subject,
                            level: meter.saved(bucket, now),
                        }),
                );
            }
        }
        rows.len()
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
        if units > 0 {
            let ticks = meter.ticks_of_units(units);
            let row = self.row(now, &saved.subject);
            self.charge(now, row, place, ticks);
        }
    }

    fn charge(&mut self, now: Time, row: u32, place: usize, ticks: u64) {
        let clock = self.meters[place].ticks_at(now);
        self.buckets.row_mut(row)[place].charge(clock, ticks);
        self.dirty.insert(row);
    }

    /// The quotas and budgets of the policy of this name.
    fn meters_of(&self, name: &str) -> Option<&[Meter]> {
        let (_, places) = self.places().find(|(policy, _)| *policy.name == *name)?;
        Some(&self.meters[places])
    }
}
