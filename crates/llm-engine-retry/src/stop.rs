use std::ops::{BitAnd, BitOr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// When to make no other attempt. Rules are combined by `|` (as soon as one of them stops) and `&` (only when both do).
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Progress, Stop};
///
/// let stop = Stop::after_attempts(6) | Stop::before(Duration::from_secs(60));
/// let progress = Progress { attempts: 2, elapsed: Duration::from_secs(50), wait: Duration::from_secs(9) };
/// assert!(!stop.stops(&progress));
/// assert!(stop.stops(&Progress { attempts: 6, ..progress }));
/// assert!(stop.stops(&Progress { wait: Duration::from_secs(10), ..progress }));
/// ```
#[derive(Debug, Clone)]
pub struct Stop(Rule);

#[derive(Debug, Clone)]
enum Rule {
    Never,
    AfterAttempts(u32),
    After(Duration),
    Before(Duration),
    WhenSet(Arc<AtomicBool>),
    Either(Box<[Stop; 2]>),
    Both(Box<[Stop; 2]>),
}

/// How far a call has come.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Progress, Stop};
///
/// let first = Progress { attempts: 1, elapsed: Duration::ZERO, wait: Duration::from_secs(1) };
/// assert!(!Stop::never().stops(&first));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The attempts so far, as far as they count.
    pub attempts: u32,
    /// Since the first one began.
    pub elapsed: Duration,
    /// How long the wait before the next one would be.
    pub wait: Duration,
}

impl Stop {
    /// Tries for ever.
    ///
    /// ```
    /// use llm_engine_retry::Stop;
    ///
    /// let patient = Stop::never();
    /// # let _ = patient;
    /// ```
    #[must_use]
    pub fn never() -> Self {
        Self(Rule::Never)
    }

    /// Makes this many attempts, the first included; 0 is as 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Progress, Stop};
    ///
    /// let progress = Progress { attempts: 3, elapsed: Duration::ZERO, wait: Duration::ZERO };
    /// assert!(Stop::after_attempts(3).stops(&progress));
    /// assert!(!Stop::after_attempts(4).stops(&progress));
    /// ```
    #[must_use]
    pub fn after_attempts(attempts: u32) -> Self {
        Self(Rule::AfterAttempts(attempts))
    }

    /// Makes no other attempt once this much time has passed. The last one may begin a wait later than that: see
    /// [`before`](Self::before).
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Progress, Stop};
    ///
    /// let second = Duration::from_secs(1);
    /// let progress = Progress { attempts: 3, elapsed: 9 * second, wait: 5 * second };
    /// assert!(!Stop::after(10 * second).stops(&progress));
    /// assert!(Stop::after(9 * second).stops(&progress));
    /// ```
    #[must_use]
    pub fn after(elapsed: Duration) -> Self {
        Self(Rule::After(elapsed))
    }

    /// Makes no attempt that would begin when this much time has passed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Progress, Stop};
    ///
    /// let second = Duration::from_secs(1);
    /// let progress = Progress { attempts: 3, elapsed: 9 * second, wait: second };
    /// assert!(Stop::before(10 * second).stops(&progress));
    /// ```
    #[must_use]
    pub fn before(elapsed: Duration) -> Self {
        Self(Rule::Before(elapsed))
    }

    /// Makes no other attempt once the flag is set, from wherever.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use std::time::Duration;
    /// use llm_engine_retry::{Progress, Stop};
    ///
    /// let is_ending = Arc::new(AtomicBool::new(false));
    /// let stop = Stop::when_set(is_ending.clone());
    /// let progress = Progress { attempts: 1, elapsed: Duration::ZERO, wait: Duration::ZERO };
    /// assert!(!stop.stops(&progress));
    /// is_ending.store(true, Ordering::Release);
    /// assert!(stop.stops(&progress));
    /// ```
    #[must_use]
    pub fn when_set(flag: Arc<AtomicBool>) -> Self {
        Self(Rule::WhenSet(flag))
    }

    /// Whether it ends here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Progress, Stop};
    ///
    /// let progress = Progress { attempts: 6, elapsed: Duration::ZERO, wait: Duration::ZERO };
    /// assert!((Stop::after_attempts(6) & Stop::after(Duration::ZERO)).stops(&progress));
    /// ```
    #[must_use]
    pub fn stops(&self, progress: &Progress) -> bool {
        match &self.0 {
            Rule::Never => false,
            Rule::AfterAttempts(most) => progress.attempts >= *most,
            Rule::After(most) => progress.elapsed >= *most,
            Rule::Before(most) => progress.elapsed.saturating_add(progress.wait) >= *most,
            Rule::WhenSet(flag) => flag.load(Ordering::Acquire),
            Rule::Either(rules) => rules.iter().any(|rule| rule.stops(progress)),
            Rule::Both(rules) => rules.iter().all(|rule| rule.stops(progress)),
        }
    }
}

/// Stops as soon as one of them does.
impl BitOr for Stop {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(Rule::Either(Box::new([self, other])))
    }
}

/// Stops only when both do.
impl BitAnd for Stop {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(Rule::Both(Box::new([self, other])))
    }
}
