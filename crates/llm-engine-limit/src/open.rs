use std::collections::VecDeque;

/// The open reservations of one bucket, each with its *floor*: the most that may be refunded when it is settled.
///
/// A request reserves its upper bound and gives back what it did not use. Giving back too much would mint burst: had the
/// request cost its true amount from the beginning, the bucket would have run full in the meantime and what refilled
/// after that would have been lost. What may be given back is the smallest level that the bucket has had since the
/// reservation was made, had what is known by now been known then.
///
/// A refund takes its amount off every level that the bucket has had since *that* reservation was made, and off none
/// before. So for each open reservation: the floor starts as the level right after it was made; it is never above any
/// later level; a refund lowers the floors of the reservations made after the refunded one by as much, and caps those
/// made before it at what the refunded one's floor is then. With that, every admitted history, replayed at its true
/// costs, is admissible; and once all are settled, the bucket stands where that replay stands, not lower.
///
/// Floors never decrease from older to younger reservations, so equal neighbours form groups.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// Oldest first; floors strictly increase.
    groups: VecDeque<Group>,
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
    /// One reservation is open, the oldest, and the level has been `level` at the least.
    pub(crate) fn start(&mut self, level: u64) {
        debug_assert!(self.groups.is_empty());
        self.groups.push_back(Group {
            first: 0,
            open: 1,
            floor: level,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The bucket's level is `level` now: no floor is above it. To be called before anything is taken from the bucket.
    pub(crate) fn observe(&mut self, level: u64) {
        let mut merged = Group {
            first: 0,
            open: 0,
            floor: level,
        };
        while let Some(last) = self.groups.pop_back_if(|last| last.floor >= level) {
            merged.first = last.first;
            merged.open += last.open;
        }
        if merged.open > 0 {
            self.groups.push_back(merged);
        }
    }

    /// A reservation was made and the level is `level` after it. `id` is above all earlier ones.
    pub(crate) fn add(&mut self, id: u64, level: u64) {
        match self.groups.back_mut() {
            Some(last) if last.floor == level => last.open += 1,
            _ => self.groups.push_back(Group {
                first: id,
                open: 1,
                floor: level,
            }),
        }
    }

    /// Ends a reservation that would give back `saved` ticks, and returns how many it may.
    pub(crate) fn settle(&mut self, id: u64, saved: u64) -> u64 {
        let mut index = self.groups.partition_point(|group| group.first <= id) - 1;
        let refund = saved.min(self.groups[index].floor);
        if refund > 0 {
            for younger in self.groups.range_mut(index..) {
                younger.floor -= refund;
            }
        }
        self.groups[index].open -= 1;
        let cap = self.groups[index].floor;
        // The groups that are capped now have one floor.
        while index > 0 && self.groups[index - 1].floor >= cap {
            self.groups[index - 1].floor = cap;
            self.groups[index - 1].open += self.groups[index].open;
            self.groups.remove(index);
            index -= 1;
        }
        if self.groups[index].open == 0 {
            self.groups.remove(index);
        }
        refund
    }
}
