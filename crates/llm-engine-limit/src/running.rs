use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::Time;

/// How many requests run, by partition key; only kept under a maximum.
#[derive(Debug)]
pub(crate) struct Running {
    maximum: Option<NonZeroU32>,
    by_key: HashMap<u64, u32, FixedState>,
    /// Average time that a request runs, from which the wait for a place is guessed.
    mean_run: Duration,
}

/// What a wait for a running request to end is assumed to be while none has ended yet.
const FIRST_GUESS: Duration = Duration::from_secs(1);

impl Running {
    pub(crate) fn new(maximum: Option<NonZeroU32>) -> Self {
        Self {
            maximum,
            by_key: HashMap::default(),
            mean_run: FIRST_GUESS,
        }
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.maximum.is_some()
    }

    pub(crate) fn count(&self, key: u64) -> u32 {
        self.by_key.get(&key).copied().unwrap_or(0)
    }

    /// Starts one more, if there is a place for it.
    #[inline(never)]
    pub(crate) fn start(&mut self, key: u64) -> bool {
        let running = self.by_key.entry(key).or_insert(0);
        let has_place = self.maximum.is_none_or(|maximum| *running < maximum.get());
        *running += u32::from(has_place);
        has_place
    }

    /// One that was started did not run after all.
    pub(crate) fn take_back(&mut self, key: u64) {
        if let Some(running) = self.by_key.get_mut(&key) {
            *running -= 1;
        }
    }

    #[inline(never)]
    pub(crate) fn end(&mut self, key: u64, started: Time, now: Time) {
        self.take_back(key);
        self.mean_run = (self.mean_run * 7 + now.since(started)) / 8;
    }

    /// A guess at how long it takes until one of `maximum` running requests ends.
    pub(crate) fn wait_for_place(&self, maximum: NonZeroU32) -> Duration {
        (self.mean_run / maximum.get()).max(Duration::from_millis(1))
    }
}
