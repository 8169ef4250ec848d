use std::ops::Range;

use prefetch_index::prefetch_index;

use crate::Subject;
use crate::bucket::Bucket;
use crate::index::{Index, OVERFLOW};
use crate::partition::{KeyKind, Partition};

/// Buckets by partition key: for each key a row with one bucket for every quota.
///
/// Ids are small numbers, so where a key is one id, it is the row's number: a decision touches one place in memory, not
/// the two or three of a hash table. Rows come in pages that exist once one of their keys was used, so that a large id
/// costs one page and not everything below it.
#[derive(Debug)]
pub(crate) struct Buckets {
    partition: Partition,
    per_row: u32,
    pages: Vec<Box<[Bucket]>>,
    /// Used where a key is more than one id.
    index: Index,
}

/// What a hash table is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableSize {
    pub(crate) capacity: u32,
    pub(crate) seed: u64,
}

const PAGE_BITS: u32 = 10;

impl Buckets {
    pub(crate) fn new(partition: Partition, per_row: u32, size: TableSize) -> Self {
        Self {
            partition,
            per_row,
            pages: Vec::new(),
            index: Index::new(partition.words(), size.capacity, size.seed),
        }
    }

    /// The number of the subject's row, or of the shared one where there are no others; `None` where all its buckets are
    /// full because it has none.
    #[inline]
    pub(crate) fn find(&self, subject: &Subject) -> Option<u32> {
        match self.partition.kind() {
            KeyKind::Id => Some(self.partition.single_id(subject)),
            KeyKind::Words => self.find_or_share(self.partition.key(subject).words()),
        }
    }

    fn find_or_share(&self, key: &[u32]) -> Option<u32> {
        let shared = || self.index.has_been_full().then_some(OVERFLOW);
        self.index.find(key).or_else(shared)
    }

    /// The number of the subject's row where it need not be searched for.
    #[inline]
    pub(crate) fn direct_row(&self, subject: &Subject) -> Option<u32> {
        (self.partition.kind() == KeyKind::Id).then(|| self.partition.single_id(subject))
    }

    /// The buckets of a row.
    pub(crate) fn get(&self, row: u32) -> Option<&[Bucket]> {
        get(&self.pages, self.per_row, row)
    }

    /// The number of the subject's row. It stays the same while `is_idle` says no of it.
    #[inline(always)]
    pub(crate) fn row(&mut self, subject: &Subject, is_idle: impl FnMut(u32, &[Bucket]) -> bool) -> u32 {
        match self.partition.kind() {
            KeyKind::Id => self.partition.single_id(subject),
            KeyKind::Words => self.intern(self.partition.key(subject).words(), is_idle),
        }
    }

    /// Has the subject's row brought into the cache, if it is known without a search and no longer than two lines.
    #[inline(always)]
    pub(crate) fn prepare(&self, subject: &Subject) {
        if let Some(row) = self.direct_row(subject) {
            let (page, buckets) = place(self.per_row, row);
            if let Some(page) = self.pages.get(page) {
                prefetch_index(page, buckets.start);
                if buckets.len() > 1 {
                    prefetch_index(page, buckets.end - 1);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn row_mut(&mut self, row: u32) -> &mut [Bucket] {
        let (page, buckets) = place(self.per_row, row);
        if self.pages.get(page).is_none_or(|page| page.len() < buckets.end) {
            return &mut self.add_page(page)[buckets];
        }
        &mut self.pages[page][buckets]
    }

    /// Every row that may have been used.
    pub(crate) fn rows(&self) -> Vec<u32> {
        match self.partition.kind() {
            KeyKind::Id => {
                let pages = (0..).zip(&self.pages).filter(|(_, page)| !page.is_empty());
                let rows = pages.flat_map(|(page, _): (u32, _)| (page << PAGE_BITS)..(page + 1) << PAGE_BITS);
                // Of a page most rows may have no key: where one row counts for all, all but one.
                rows.filter(|row| self.partition.single_id(&self.subject_of(*row)) == *row)
                    .collect()
            }
            KeyKind::Words => self.index.rows().chain([OVERFLOW]).collect(),
        }
    }

    /// A subject whose row this is.
    pub(crate) fn subject_of(&self, row: u32) -> Subject {
        let key = match self.partition.kind() {
            KeyKind::Id => &[],
            KeyKind::Words => self.index.key(row),
        };
        self.partition.subject_of(row, key)
    }

    /// Whether the row is shared by keys that found no row of their own.
    #[inline]
    pub(crate) fn is_overflow(&self, row: u32) -> bool {
        row == OVERFLOW && self.partition.kind() != KeyKind::Id
    }

    #[cold]
    #[inline(never)]
    fn add_page(&mut self, page: usize) -> &mut [Bucket] {
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Box::default);
        }
        self.pages[page] = vec![Bucket::FULL; (self.per_row as usize) << PAGE_BITS].into_boxed_slice();
        &mut self.pages[page]
    }

    // Apart, so that the common case keeps its registers.
    #[inline(never)]
    fn intern(&mut self, key: &[u32], mut is_idle: impl FnMut(u32, &[Bucket]) -> bool) -> u32 {
        if let Some(row) = self.index.find(key) {
            return row;
        }
        let Self {
            index,
            pages,
            per_row,
            ..
        } = self;
        let row = index.add(key, |row| {
            is_idle(row, get(pages, *per_row, row).unwrap_or_default())
        });
        if row != OVERFLOW && index.has_been_full() {
            self.inherit_shared(row);
        }
        row
    }

    /// The key may have taken from the shared row before: what is missing there is missing in its own, or it would have two
    /// bursts.
    #[cold]
    #[inline(never)]
    fn inherit_shared(&mut self, row: u32) {
        for place in 0..self.per_row as usize {
            let shared = self.row_mut(OVERFLOW)[place].tat();
            self.row_mut(row)[place] = Bucket::full_at(shared);
        }
    }
}

fn get(pages: &[Box<[Bucket]>], per_row: u32, row: u32) -> Option<&[Bucket]> {
    let (page, buckets) = place(per_row, row);
    pages.get(page)?.get(buckets)
}

/// The row's page and its buckets there.
#[inline]
fn place(per_row: u32, row: u32) -> (usize, Range<usize>) {
    let in_page = row & ((1 << PAGE_BITS) - 1);
    // Not formed from larger numbers, so that the compiler sees that it can't overflow.
    let first = in_page as usize * per_row as usize;
    ((row >> PAGE_BITS) as usize, first..first + per_row as usize)
}
