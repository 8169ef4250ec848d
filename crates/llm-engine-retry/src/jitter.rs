use std::time::Duration;

/// The random part of a wait. Without one, callers that failed together come back together, again and again.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Backoff, Jitter};
///
/// let four = Backoff::constant(Duration::from_secs(4));
/// let wait = |jitter| four.clone().jitter(jitter).waits(|| 0.5).next().unwrap();
/// assert_eq!(wait(Jitter::None), Duration::from_secs(4));
/// assert_eq!(wait(Jitter::Full), Duration::from_secs(2));
/// assert_eq!(wait(Jitter::Equal), Duration::from_secs(3));
/// assert_eq!(wait(Jitter::Additive(Duration::from_secs(1))), Duration::from_millis(4500));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// The wait as it is.
    None,
    /// Anything from the least wait up to the wait.
    Full,
    /// Anything from half of the wait up to the wait.
    Equal,
    /// The wait, and anything up to this on top of it.
    Additive(Duration),
}
