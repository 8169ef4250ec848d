use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::Subject;
use crate::bucket::Bucket;
use crate::partition::Partition;

/// Buckets by partition key: for each key a row with one bucket for every quota.
///
/// Ids are small numbers, so where a key is one id, it is the row's number: a decision touches one place in memory, not
/// the two or three of a hash table. Rows come in pages that exist once one of their keys was used, so that a large id
/// costs one page and not everything below it.
#[derive(Debug)]
pub(crate) struct Buckets {
    partition: Partition,
    per_row: usize,
    pages: Vec<Box<[Bucket]>>,
    /// Row numbers by key, where a key is two ids.
    interned: HashMap<u64, u32, FixedState>,
}

const PAGE_BITS: u32 = 10;

impl Buckets {
    pub(crate) fn new(partition: Partition, per_row: usize) -> Self {
        Self {
            partition,
            per_row,
            pages: Vec::new(),
            interned: HashMap::default(),
        }
    }

    /// The subject's row; `None` where all its buckets are full because it was never used.
    pub(crate) fn get(&self, subject: Subject) -> Option<&[Bucket]> {
        let row = match self.partition.single_id(subject) {
            Some(id) => id,
            None => *self.interned.get(&self.key(subject))?,
        };
        let (page, first) = self.place(row);
        self.pages.get(page)?.get(first..first + self.per_row)
    }

    /// The number of the subject's row, the same for ever.
    #[inline]
    pub(crate) fn row(&mut self, subject: Subject) -> u32 {
        match self.partition.single_id(subject) {
            Some(id) => id,
            None => self.intern(self.key(subject)),
        }
    }

    /// The subject's partition key.
    #[inline]
    pub(crate) fn key(&self, subject: Subject) -> u64 {
        self.partition.key(subject)
    }

    #[inline]
    pub(crate) fn row_mut(&mut self, row: u32) -> &mut [Bucket] {
        let (page, first) = self.place(row);
        let end = first + self.per_row;
        if self.pages.get(page).is_none_or(|page| page.len() < end) {
            return &mut self.add_page(page)[first..end];
        }
        &mut self.pages[page][first..end]
    }

    /// The row's page and its first bucket there.
    #[inline]
    fn place(&self, row: u32) -> (usize, usize) {
        let in_page = row & ((1 << PAGE_BITS) - 1);
        ((row >> PAGE_BITS) as usize, in_page as usize * self.per_row)
    }

    #[cold]
    #[inline(never)]
    fn add_page(&mut self, page: usize) -> &mut [Bucket] {
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Box::default);
        }
        self.pages[page] = vec![Bucket::FULL; self.per_row << PAGE_BITS].into_boxed_slice();
        &mut self.pages[page]
    }

    // Apart, so that the common case keeps its registers.
    #[inline(never)]
    fn intern(&mut self, key: u64) -> u32 {
        let next = u32::try_from(self.interned.len()).expect("fewer than 2^32 keys");
        *self.interned.entry(key).or_insert(next)
    }
}
