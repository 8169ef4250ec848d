use std::collections::VecDeque;

/// The open reservations of one bucket, each with its *floor*: the most that may be refunded when it is settled.
///
/// A request reserves its upper bound and gives back what it did not use. Giving back too much would mint burst: had the
/// request cost its true amount from the beginning, the bucket would have run full in the meantime and what refilled
/// after that would have been lost. What may be given back is the smallest level that the bucket has had since the
/// reservation was made, and whatever one reservation gives back is no longer there for the others.
///
/// So for each open reservation: the floor starts as the level right after it was made; it is never above any later
/// level; each refund to another reservation lowers it by as much, down to 0. With that, every admitted history,
/// replayed at its true costs, is admissible.
///
/// Floors never decrease from older to younger reservations, so equal neighbours form groups, and each operation is
/// O(log n) at worst, O(1) amortised, however many reservations are open.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// Oldest first; floors strictly increase once `refunded` is taken off, down to 0.
    groups: VecDeque<Group>,
    /// What has been refunded since the groups' floors were written: to be taken off each of them.
    refunded: u64,
}

/// Neighbouring reservations with the same floor.
#[derive(Debug)]
struct Group {
    /// The id of the oldest reservation that was ever in the group; ids grow with time.
    first: u64,
    /// How many of them are still open.
    open: u32,
    floor: u64,
}

impl Open {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The bucket's level is `level` now: no floor is above it. To be called before anything is taken from the bucket.
    pub(crate) fn observe(&mut self, level: u64) {
        let floor = level + self.refunded;
        let mut merged = Group {
            first: 0,
            open: 0,
            floor,
        };
        while let Some(last) = self.groups.pop_back_if(|last| last.floor >= floor) {
            merged.first = last.first;
            merged.open += last.open;
        }
        if merged.open > 0 {
            self.groups.push_back(merged);
        }
    }

    /// A reservation was made and the level is `level` after it. `id` is above all earlier ones.
    pub(crate) fn add(&mut self, id: u64, level: u64) {
        self.groups.push_back(Group {
            first: id,
            open: 1,
            floor: level + self.refunded,
        });
    }

    /// Ends a reservation that would give back `saved` ticks, and returns how many it may.
    pub(crate) fn settle(&mut self, id: u64, saved: u64) -> u64 {
        let index = self.groups.partition_point(|group| group.first <= id) - 1;
        let group = &mut self.groups[index];
        let refund = saved.min(group.floor.saturating_sub(self.refunded));
        group.open -= 1;
        if group.open == 0 {
            self.groups.remove(index);
        }
        self.refunded = if self.groups.is_empty() {
            0
        } else {
            self.refunded + refund
        };
        if self.refunded >= crate::quota::MAX_TICKS {
            self.take_off_refunded();
        }
        refund
    }

    /// Keeps the sums within 64 bits on a bucket that always has something open.
    fn take_off_refunded(&mut self) {
        for group in &mut self.groups {
            group.floor = group.floor.saturating_sub(self.refunded);
        }
        self.refunded = 0;
    }
}
