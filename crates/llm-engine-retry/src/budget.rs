use std::collections::VecDeque;
use std::time::Duration;

/// How many retries there may be in all, as a share of the requests, so that retries of many callers do not hold down a
/// server that is already down: in a total outage, who makes up to six attempts of each call sends six times as much.
///
/// Counted are retries of failures about which nobody said when to come back: of the last 10 s at most a fifth of the
/// requests, and [`FLOOR`](Self::FLOOR) for those who have few. A maximum of attempts per call, which is what most retry libraries
/// have, bounds the wrong thing.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Budget;
///
/// let mut budget = Budget::default();
/// let now = Duration::from_secs(100);
/// for _ in 0..1000 {
///     budget.request(now);
/// }
/// let retries = (0..1000).filter(|_| budget.retry(now)).count();
/// assert_eq!(retries, 200);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// By the second, the oldest first.
    seconds: VecDeque<Second>,
    /// The sums of them.
    requests: u64,
    retries: u64,
}

#[derive(Debug, Clone)]
struct Second {
    number: u64,
    requests: u64,
    retries: u64,
}

/// How far back requests and retries count, in seconds.
const WINDOW: u64 = 10;
/// A retry for so many requests.
const REQUESTS_PER_RETRY: u64 = 5;

impl Budget {
    /// Retries within 10 s that need no requests.
    pub const FLOOR: u64 = 10;

    /// A call was made for the first time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Budget;
    ///
    /// Budget::default().request(Duration::ZERO);
    /// ```
    pub fn request(&mut self, now: Duration) {
        self.second(now).requests += 1;
        self.requests += 1;
    }

    /// Takes a retry from the budget, or says no.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Budget;
    ///
    /// let mut budget = Budget::default();
    /// let retries = (0..100).filter(|_| budget.retry(Duration::ZERO)).count();
    /// assert_eq!(retries, 10);
    /// assert!(budget.retry(Duration::from_secs(10)));
    /// ```
    pub fn retry(&mut self, now: Duration) -> bool {
        if self.left(now) == 0 {
            return false;
        }
        self.second(now).retries += 1;
        self.retries += 1;
        true
    }

    /// How many retries there may be now.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Budget;
    ///
    /// let mut budget = Budget::default();
    /// assert!(budget.retry(Duration::ZERO));
    /// assert_eq!(budget.left(Duration::ZERO), Budget::FLOOR - 1);
    /// ```
    pub fn left(&mut self, now: Duration) -> u64 {
        self.forget(now);
        let allowed = (self.requests / REQUESTS_PER_RETRY).max(Self::FLOOR);
        allowed.saturating_sub(self.retries)
    }

    fn second(&mut self, now: Duration) -> &mut Second {
        self.forget(now);
        let number = now.as_secs();
        // A clock that goes back is counted at the latest second.
        if self.seconds.back().is_none_or(|last| last.number < number) {
            self.seconds.push_back(Second {
                number,
                requests: 0,
                retries: 0,
            });
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    fn forget(&mut self, now: Duration) {
        let number = now.as_secs();
        while let Some(first) = self.seconds.pop_front_if(|first| first.number + WINDOW <= number) {
            self.requests -= first.requests;
            self.retries -= first.retries;
        }
    }
}
