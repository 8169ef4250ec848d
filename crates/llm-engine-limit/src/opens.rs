use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::open::Open;

/// The open reservations of all buckets that have several, by row and quota. A bucket that is marked as open and is not
/// here has one open reservation, and nothing has happened since that was made: its floor is the level.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    by_bucket: HashMap<(u32, usize), Open, FixedState>,
    /// Kept so that a request allocates nothing.
    spare: Vec<Open>,
}

impl Opens {
    /// No bucket has several.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_bucket.is_empty()
    }

    /// One more on a bucket that has some, whose level changes.
    #[inline(never)]
    pub(crate) fn add(&mut self, row: u32, quota: usize, id: u64, before: u64, after: u64) {
        let open = self.by_bucket.entry((row, quota)).or_insert_with(|| {
            let mut open = self.spare.pop().unwrap_or_default();
            open.start(before);
            open
        });
        open.observe(before);
        open.add(id, after);
    }

    /// How much may be refunded, and whether it was the last one.
    pub(crate) fn settle(&mut self, row: u32, quota: usize, id: u64, level: u64, saved: u64) -> (u64, bool) {
        if self.is_empty() {
            return (saved.min(level), true);
        }
        self.settle_one_of_several(row, quota, id, level, saved)
    }

    #[inline(never)]
    fn settle_one_of_several(
        &mut self,
        row: u32,
        quota: usize,
        id: u64,
        level: u64,
        saved: u64,
    ) -> (u64, bool) {
        let Some(open) = self.by_bucket.get_mut(&(row, quota)) else {
            return (saved.min(level), true);
        };
        open.observe(level);
        let refund = open.settle(id, saved);
        let is_last = open.is_empty();
        if is_last {
            self.spare.extend(self.by_bucket.remove(&(row, quota)));
        }
        (refund, is_last)
    }
}
