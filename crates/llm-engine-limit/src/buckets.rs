use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::bucket::Bucket;
use crate::policy::{Policy, Subject};

/// The buckets of one policy: for each partition key a row with one bucket for every quota.
///
/// Ids are small numbers, so where a key is one id, it is the row's number: a decision touches one place in memory, not
/// the two or three of a hash table. Rows come in pages that exist once one of their keys was used, so that a large id
/// costs one page and not everything below it.
#[derive(Debug)]
pub(crate) struct Buckets {
    per_row: usize,
    pages: Vec<Box<[Bucket]>>,
    /// Row numbers by key, where a key is two ids.
    interned: Option<HashMap<u64, u32, FixedState>>,
}

const PAGE_BITS: u32 = 10;

impl Buckets {
    pub(crate) fn new(policy: &Policy) -> Self {
        let per = policy.per;
        let two_ids = (per.caller || per.team) && per.model;
        Self {
            per_row: policy.quotas.len(),
            pages: Vec::new(),
            interned: two_ids.then(HashMap::default),
        }
    }

    /// The number of the key's row; `None` where the key was never used.
    #[inline]
    pub(crate) fn row(&self, policy: &Policy, subject: Subject) -> Option<u32> {
        match &self.interned {
            None => Some(policy.single_id(subject)),
            Some(rows) => interned(rows, policy.partition_key(subject)),
        }
    }

    #[inline]
    pub(crate) fn row_or_new(&mut self, policy: &Policy, subject: Subject) -> u32 {
        match &mut self.interned {
            None => policy.single_id(subject),
            Some(rows) => intern(rows, policy.partition_key(subject)),
        }
    }

    /// `None` where all its buckets are full because it was never used.
    #[inline]
    pub(crate) fn get(&self, row: u32) -> Option<&[Bucket]> {
        let first = (row & ((1 << PAGE_BITS) - 1)) as usize * self.per_row;
        self.pages
            .get((row >> PAGE_BITS) as usize)?
            .get(first..first + self.per_row)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, row: u32) -> &mut [Bucket] {
        let page = (row >> PAGE_BITS) as usize;
        let first = (row & ((1 << PAGE_BITS) - 1)) as usize * self.per_row;
        if self.pages.get(page).is_none_or(|page| page.is_empty()) {
            self.add_page(page);
        }
        &mut self.pages[page][first..first + self.per_row]
    }

    #[cold]
    fn add_page(&mut self, page: usize) {
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Box::default);
        }
        self.pages[page] = vec![Bucket::FULL; self.per_row << PAGE_BITS].into_boxed_slice();
    }
}

// Apart, so that the common case keeps its registers.
#[inline(never)]
fn interned(rows: &HashMap<u64, u32, FixedState>, key: u64) -> Option<u32> {
    rows.get(&key).copied()
}

#[inline(never)]
fn intern(rows: &mut HashMap<u64, u32, FixedState>, key: u64) -> u32 {
    let next = u32::try_from(rows.len()).expect("fewer than 2^32 keys");
    *rows.entry(key).or_insert(next)
}
