use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::Refusal;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// A row of a batch: it waits until nobody else does, for as long as that takes, and rows together leave a quarter of the
    /// places free.
    Batch,
}

/// The line in front of one model: so many requests run, so many more wait for a bounded time, first come, first served.
/// Rows of batches stand beside it, and take what it leaves.
#[derive(Debug)]
pub(crate) struct Queue {
    model: String,
    places: Arc<Semaphore>,
    /// Those that rows of batches may hold.
    batch_places: Arc<Semaphore>,
    /// Told whenever there may be a place that nobody in the line wants.
    freed: Arc<Notify>,
    concurrency: NonZeroUsize,
    wait: Duration,
    length: usize,
    waiting: AtomicUsize,
    mean_run: Arc<MeanRun>,
}

/// A place among the running requests, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Instant,
    mean_run: Arc<MeanRun>,
    _permit: OwnedSemaphorePermit,
    _of_batches: Option<OwnedSemaphorePermit>,
    /// The last to be dropped: whoever it tells finds the place free.
    _freed: Freed,
}

/// Tells one row of a batch, when it is dropped, to look for a place.
#[derive(Debug)]
struct Freed(Arc<Notify>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.notify_one();
    }
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
            batch_places: Arc::new(Semaphore::new(batch_places(concurrency))),
            freed: Arc::default(),
            concurrency,
            wait,
            length,
            waiting: AtomicUsize::new(0),
            mean_run: Arc::new(MeanRun(AtomicU64::new(millis(FIRST_GUESS)))),
        }
    }

    /// A place.
    pub(crate) async fn place(&self, priority: Priority) -> Result<Place, Refusal> {
        match priority {
            Priority::Interactive => self.place_in_line().await,
            Priority::Batch => Ok(self.place_left().await),
        }
    }

    /// At once, or after a wait of bounded time.
    async fn place_in_line(&self) -> Result<Place, Refusal> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(self.taken(permit, None));
        }
        // Who goes without a place may leave one that was just given to it.
        let _freed = Freed(Arc::clone(&self.freed));
        let Some(_waiting) = Waiting::enter(&self.waiting, self.length) else {
            return Err(self.saturated());
        };
        match timeout(self.wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.taken(permit, None)),
            // The semaphore is never closed, so what is left is that the time is over.
            Ok(Err(_)) | Err(_) => Err(self.saturated()),
        }
    }

    /// One that nobody in the line wants, whenever there is one: a free place is given to who waits in the line before it
    /// can be taken here.
    async fn place_left(&self) -> Place {
        let of_batches = Arc::clone(&self.batch_places).acquire_owned().await.ok();
        loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                // Two places that become free at once may have told only one of us.
                if self.places.available_permits() > 0 {
                    self.freed.notify_one();
                }
                return self.taken(permit, of_batches);
            }
            self.freed.notified().await;
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

    fn taken(&self, permit: OwnedSemaphorePermit, of_batches: Option<OwnedSemaphorePermit>) -> Place {
        Place {
            taken: Instant::now(),
            mean_run: Arc::clone(&self.mean_run),
            _permit: permit,
            _of_batches: of_batches,
            _freed: Freed(Arc::clone(&self.freed)),
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

/// Rows of batches leave a quarter of the places to those who wait for their answers, but for the only one.
fn batch_places(concurrency: NonZeroUsize) -> usize {
    let all = concurrency.get();
    (all - all.div_ceil(4)).max(1)
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn queue(concurrency: usize) -> Queue {
        let concurrency = NonZeroUsize::new(concurrency).expect("not zero");
        Queue::new("m", concurrency, Duration::from_secs(2), 10)
    }

    /// A place that is there without waiting.
    fn at_once(queue: &Queue, priority: Priority) -> Option<Place> {
        queue.place(priority).now_or_never()?.ok()
    }

    #[tokio::test]
    async fn rows_of_batches_leave_a_quarter_of_the_places() {
        for (places, most) in [(1, 1), (2, 1), (4, 3), (64, 48)] {
            let queue = queue(places);
            let taken: Vec<Place> = std::iter::from_fn(|| at_once(&queue, Priority::Batch)).collect();
            assert_eq!(taken.len(), most);
            assert_eq!(at_once(&queue, Priority::Interactive).is_some(), places > 1);
        }
    }

    #[tokio::test]
    async fn a_place_goes_to_who_waits_in_the_line_before_any_row_of_a_batch() {
        let queue = queue(1);
        let first = at_once(&queue, Priority::Interactive);
        let mut row = Box::pin(queue.place(Priority::Batch));
        assert!(row.as_mut().now_or_never().is_none());
        let mut waiting = Box::pin(queue.place(Priority::Interactive));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(row.as_mut().now_or_never().is_none());
        let second = waiting.await;
        assert!(row.as_mut().now_or_never().is_none());
        drop(second);
        row.await.expect("rows are never refused");
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_who_has_gone_is_found_by_a_row() {
        let queue = queue(1);
        let first = at_once(&queue, Priority::Interactive);
        let mut row = Box::pin(queue.place(Priority::Batch));
        assert!(row.as_mut().now_or_never().is_none());
        let mut waiting = Box::pin(queue.place(Priority::Interactive));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(row.as_mut().now_or_never().is_none());
        drop(waiting);
        row.await.expect("rows are never refused");
    }
}
