use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::Refusal;

/// The line in front of one model: so many requests run, so many more wait for a bounded time, first come, first served.
#[derive(Debug)]
pub(crate) struct Queue {
    model: String,
    places: Arc<Semaphore>,
    concurrency: NonZeroUsize,
    wait: Duration,
    length: usize,
    waiting: AtomicUsize,
    mean_run: Arc<MeanRun>,
}

/// A place among the running requests, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    taken: Instant,
    mean_run: Arc<MeanRun>,
}

/// The average time that a request holds its place, in milliseconds: the base of the guess when one will be free.
#[derive(Debug)]
struct MeanRun(AtomicU64);

const FIRST_GUESS: Duration = Duration::from_secs(2);

impl Queue {
    pub(crate) fn new(model: &str, concurrency: NonZeroUsize, wait: Duration, length: usize) -> Self {
        Self {
            model: model.to_owned(),
            places: Arc::new(Semaphore::new(concurrency.get())),
            concurrency,
            wait,
            length,
            waiting: AtomicUsize::new(0),
            mean_run: Arc::new(MeanRun(AtomicU64::new(millis(FIRST_GUESS)))),
        }
    }

    /// A place: at once, or after a wait of bounded time.
    pub(crate) async fn place(&self) -> Result<Place, Refusal> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(self.taken(permit));
        }
        let Some(_waiting) = Waiting::enter(&self.waiting, self.length) else {
            return Err(self.saturated());
        };
        match timeout(self.wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.taken(permit)),
            // The semaphore is never closed, so what is left is that the time is over.
            Ok(Err(_)) | Err(_) => Err(self.saturated()),
        }
    }

    /// Requests that hold a place now.
    pub(crate) fn running(&self) -> usize {
        self.concurrency.get() - self.places.available_permits()
    }

    /// Requests that wait for a place now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Place {
        Place {
            _permit: permit,
            taken: Instant::now(),
            mean_run: Arc::clone(&self.mean_run),
        }
    }

    fn saturated(&self) -> Refusal {
        let ahead = self.waiting.load(Ordering::Relaxed) + 1;
        let mean_run = Duration::from_millis(self.mean_run.0.load(Ordering::Relaxed));
        let rounds = ahead.div_ceil(self.concurrency.get());
        let retry_after = mean_run * u32::try_from(rounds).unwrap_or(u32::MAX);
        Refusal::saturated(
            &self.model,
            self.concurrency.get(),
            retry_after.min(LONGEST_GUESS),
        )
    }
}

/// Clients don't follow hints above a minute.
const LONGEST_GUESS: Duration = Duration::from_secs(60);

impl Drop for Place {
    fn drop(&mut self) {
        let run = millis(self.taken.elapsed());
        let mean = self.mean_run.0.load(Ordering::Relaxed);
        // A lost update between the two only makes the guess a little older.
        self.mean_run.0.store((mean * 7 + run) / 8, Ordering::Relaxed);
    }
}

/// One request in the line, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, length: usize) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) < length {
            return Some(Self(waiting));
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 8)
}
