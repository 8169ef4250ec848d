use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::Time;
use crate::bookings::HORIZON;

/// How many requests run, by row; only kept under a maximum.
#[derive(Debug)]
pub(crate) struct Running {
    maximum: Option<NonZeroU32>,
    by_row: HashMap<u32, u32, FixedState>,
    /// Average time that a request runs, from which the wait for a place is guessed.
    mean_run: Duration,
    /// By row, the time for which somebody was told last that a place may be free.
    told: HashMap<u32, Time, FixedState>,
}

/// What a wait for a running request to end is assumed to be while none has ended yet.
const FIRST_GUESS: Duration = Duration::from_secs(1);

impl Running {
    pub(crate) fn new(maximum: Option<NonZeroU32>) -> Self {
        Self {
            maximum,
            by_row: HashMap::default(),
            mean_run: FIRST_GUESS,
            told: HashMap::default(),
        }
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.maximum.is_some()
    }

    pub(crate) fn count(&self, row: u32) -> u32 {
        self.by_row.get(&row).copied().unwrap_or(0)
    }

    /// Whether one more may run.
    pub(crate) fn has_place(&self, row: u32) -> bool {
        self.maximum.is_none_or(|maximum| self.count(row) < maximum.get())
    }

    /// Starts one more, if there is a place for it.
    #[inline(never)]
    pub(crate) fn start(&mut self, row: u32) -> bool {
        let has_place = self.has_place(row);
        if has_place {
            *self.by_row.entry(row).or_insert(0) += 1;
        }
        has_place
    }

    /// One that was started did not run after all.
    pub(crate) fn take_back(&mut self, row: u32) {
        if let Entry::Occupied(mut running) = self.by_row.entry(row) {
            *running.get_mut() -= 1;
            if *running.get() == 0 {
                running.remove();
                self.told.remove(&row);
            }
        }
    }

    #[inline(never)]
    pub(crate) fn end(&mut self, row: u32, started: Time, now: Time) {
        self.take_back(row);
        self.mean_run = (self.mean_run * 7 + now.since(started)) / 8;
    }

    /// All rows on which requests run, and how many.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u32, u32)> {
        self.by_row.iter().map(|(row, count)| (*row, *count))
    }

    /// So many run that were started under another maximum.
    pub(crate) fn take_over(&mut self, row: u32, count: u32) {
        self.by_row.insert(row, count);
    }

    /// A guess at when a place is free for whoever asks next: places become free one by one, and who was told a time before
    /// has the earlier ones.
    pub(crate) fn next_place(&self, row: u32, now: Time) -> Time {
        let places = self.maximum.map_or(1, NonZeroU32::get);
        let pace = (self.mean_run / places).max(Duration::from_millis(1));
        let told = self.told.get(&row).copied();
        let next = told.map_or(now, |told| told.max(now)) + pace;
        if next.since(now) > HORIZON {
            now + pace
        } else {
            next
        }
    }

    /// Somebody was told [`Self::next_place`].
    pub(crate) fn tell_place(&mut self, row: u32, now: Time) {
        let next = self.next_place(row, now);
        self.told.insert(row, next);
    }
}
