use std::time::Duration;

use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until there is something to see, and returns it with the time that it took.
///
/// # Panics
/// If there is nothing to see within the time; `what` was waited for.
#[track_caller]
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = (T, Duration)> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look().await {
                return (seen, begun.elapsed());
            }
            assert!(
                begun.elapsed() < within,
                "{caller}: {what}: not within {within:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }
}
