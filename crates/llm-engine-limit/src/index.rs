use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Row numbers by key, for keys that are more than one id: anybody may come up with another such key, so rows that nobody
/// needs any more are used again, and their number is bounded.
///
/// Nothing is ever swept. Each new key has a look at a few old rows in turn, so that idle ones are found as fast as new
/// ones are needed, and no request pays for many. The table is in parts so that none pays for the growth of all of it.
#[derive(Debug)]
pub(crate) struct Index {
    parts: Vec<HashTable<u32>>,
    hasher: FixedState,
    /// Words of a key.
    words: usize,
    /// Keys by row, in pages.
    pages: Vec<Box<[u32]>>,
    /// The next row that was never used.
    next: u32,
    free: Vec<u32>,
    /// The row that is looked at next.
    hand: u32,
    capacity: u32,
}

/// The row that keys share which come when every row is needed.
pub(crate) const OVERFLOW: u32 = 0;

const PARTS: usize = 256;
const PAGE_ROWS: u32 = 1024;
/// Rows that a new key has a look at: more than one, so that the table gets smaller where it can.
const LOOKS: u32 = 4;

impl Index {
    /// For at most `capacity` rows at a time. `seed` makes it hard to find keys that hash alike.
    pub(crate) fn new(words: usize, capacity: u32, seed: u64) -> Self {
        Self {
            parts: Vec::new(),
            hasher: FixedState::with_seed(seed),
            words,
            pages: Vec::new(),
            next: OVERFLOW + 1,
            free: Vec::new(),
            hand: OVERFLOW,
            capacity,
        }
    }

    /// The key's row, if it has one.
    pub(crate) fn find(&self, key: &[u32]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let part = self.parts.get(part_of(hash))?;
        part.find(hash, |row| self.key(*row) == key).copied()
    }

    /// The row for a key that has none: one that `is_idle`, a new one, or [`OVERFLOW`].
    pub(crate) fn add(&mut self, key: &[u32], mut is_idle: impl FnMut(u32) -> bool) -> u32 {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashTable::new);
        }
        for _ in 0..LOOKS.min(self.next - 1) {
            self.hand = if self.hand + 1 < self.next {
                self.hand + 1
            } else {
                OVERFLOW + 1
            };
            if is_idle(self.hand) {
                self.remove(self.hand);
            }
        }
        let row = match self.free.pop() {
            Some(row) => row,
            None if self.next <= self.capacity => {
                self.next += 1;
                self.next - 1
            }
            None => return OVERFLOW,
        };
        self.set_key(row, key);
        let hash = self.hasher.hash_one(key);
        let Self {
            parts,
            hasher,
            pages,
            words,
            ..
        } = self;
        parts[part_of(hash)].insert_unique(hash, row, |row| hasher.hash_one(key_in(pages, *words, *row)));
        row
    }

    /// Whether keys may have shared a row.
    pub(crate) fn has_been_full(&self) -> bool {
        self.next > self.capacity
    }

    /// How many keys have a row now.
    pub(crate) fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Whether there is no row for another key.
    pub(crate) fn is_full(&self) -> bool {
        self.has_been_full() && self.free.is_empty()
    }

    /// Every row that a key has now.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> {
        self.parts.iter().flat_map(|part| part.iter().copied())
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: u32) -> &[u32] {
        key_in(&self.pages, self.words, row)
    }

    /// Does nothing if the row has no key.
    fn remove(&mut self, row: u32) {
        let hash = self.hasher.hash_one(self.key(row));
        if let Ok(entry) = self.parts[part_of(hash)].find_entry(hash, |found| *found == row) {
            entry.remove();
            self.free.push(row);
        }
    }

    fn set_key(&mut self, row: u32, key: &[u32]) {
        let page = (row / PAGE_ROWS) as usize;
        if page >= self.pages.len() {
            self.pages
                .push(vec![0; self.words * PAGE_ROWS as usize].into_boxed_slice());
        }
        let first = (row % PAGE_ROWS) as usize * self.words;
        self.pages[page][first..first + self.words].copy_from_slice(key);
    }
}

fn key_in(pages: &[Box<[u32]>], words: usize, row: u32) -> &[u32] {
    let first = (row % PAGE_ROWS) as usize * words;
    &pages[(row / PAGE_ROWS) as usize][first..first + words]
}

/// By bits that the table itself uses last.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
