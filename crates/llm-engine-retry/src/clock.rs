use std::time::Duration;

/// What a call needs of time: to know it, and to let it pass.
///
/// ```
/// use std::time::{Duration, Instant};
/// use llm_engine_retry::Clock;
///
/// /// Real time, in a thread.
/// struct Wall(Instant);
///
/// impl Clock for Wall {
///     fn now(&self) -> Duration {
///         self.0.elapsed()
///     }
///
///     fn sleep(&mut self, wait: Duration) {
///         std::thread::sleep(wait);
///     }
/// }
/// # let _ = Wall(Instant::now()).now();
/// ```
pub trait Clock {
    /// The time since some moment in the past, always the same one.
    fn now(&self) -> Duration;

    /// Returns when so much time has passed.
    fn sleep(&mut self, wait: Duration);
}

/// A clock for tests: sleeping takes no time but moves its hands.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Clock, VirtualClock};
///
/// let mut clock = VirtualClock::default();
/// clock.sleep(Duration::from_secs(3600));
/// assert_eq!(clock.now(), Duration::from_secs(3600));
/// assert_eq!(clock.sleeps(), [Duration::from_secs(3600)]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct VirtualClock {
    now: Duration,
    sleeps: Vec<Duration>,
}

impl VirtualClock {
    /// Every sleep so far.
    #[must_use]
    pub fn sleeps(&self) -> &[Duration] {
        &self.sleeps
    }

    /// Lets time pass that nobody slept: work that takes long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Clock, VirtualClock};
    ///
    /// let mut clock = VirtualClock::default();
    /// clock.advance(Duration::from_secs(2));
    /// assert_eq!(clock.now(), Duration::from_secs(2));
    /// assert!(clock.sleeps().is_empty());
    /// ```
    pub fn advance(&mut self, passed: Duration) {
        self.now = self.now.saturating_add(passed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, wait: Duration) {
        self.advance(wait);
        self.sleeps.push(wait);
    }
}
