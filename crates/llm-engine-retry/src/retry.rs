use std::fmt;
use std::time::Duration;

use crate::{Attempt, Attempts, Backoff, Clock, Failure, Next, Stop};

/// When another attempt is made, and after how long a wait.
///
/// The default is what the guide recommends: random exponential backoff from 1 s to 60 s, six attempts; what the server says
/// about when to come back goes before.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Backoff, Failure, Judgement, Retry, Stop, VirtualClock};
///
/// let retry = Retry::new(Backoff::constant(Duration::from_secs(1)), Stop::after_attempts(3));
/// let mut clock = VirtualClock::default();
/// let mut tries = 0;
/// let answer = retry.call(
///     &mut clock,
///     || 0.5,
///     |_| {
///         tries += 1;
///         if tries < 3 { Err("busy") } else { Ok(tries) }
///     },
///     |error| Failure { what: error.to_string(), judgement: Judgement::Transient },
/// );
/// assert_eq!(answer.unwrap(), 3);
/// assert_eq!(clock.sleeps(), [Duration::from_secs(1); 2]);
/// ```
#[derive(Debug, Clone)]
pub struct Retry {
    pub(crate) backoff: Backoff,
    pub(crate) stop: Stop,
    pub(crate) longest_hint: Duration,
    pub(crate) counts_hinted: bool,
}

/// What a hint may ask for at most, unless it is told otherwise.
const LONGEST_HINT: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 6;

impl Default for Retry {
    fn default() -> Self {
        Self::new(Backoff::default(), Stop::after_attempts(ATTEMPTS))
    }
}

impl Retry {
    /// Waits as the backoff says, until it stops.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Backoff, Retry, Stop};
    ///
    /// let retry = Retry::new(Backoff::published(), Stop::before(Duration::from_secs(300)));
    /// # let _ = retry;
    /// ```
    #[must_use]
    pub fn new(backoff: Backoff, stop: Stop) -> Self {
        Self {
            backoff,
            stop,
            longest_hint: LONGEST_HINT,
            counts_hinted: true,
        }
    }

    /// No other attempts.
    ///
    /// ```
    /// use llm_engine_retry::Retry;
    ///
    /// let once = Retry::never();
    /// # let _ = once;
    /// ```
    #[must_use]
    pub fn never() -> Self {
        Self::new(Backoff::default(), Stop::after_attempts(1))
    }

    /// Gives up at once when asked to wait for longer than this; 120 s by default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Retry;
    ///
    /// let impatient = Retry::default().longest_hint(Duration::from_secs(10));
    /// # let _ = impatient;
    /// ```
    #[must_use]
    pub fn longest_hint(self, longest_hint: Duration) -> Self {
        Self { longest_hint, ..self }
    }

    /// The longest wait that it takes on when it is asked to: see [`longest_hint`](Self::longest_hint).
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Retry;
    ///
    /// assert_eq!(Retry::default().patience(), Duration::from_secs(120));
    /// ```
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.longest_hint
    }

    /// Whether an attempt that was answered by a time to come back counts as one of those that
    /// [`Stop::after_attempts`] allows. It does by default. A program with millions of rows to get through says no: being told
    /// to come later is no reason to give one up.
    ///
    /// ```
    /// use llm_engine_retry::Retry;
    ///
    /// let persistent = Retry::default().count_hinted(false);
    /// # let _ = persistent;
    /// ```
    #[must_use]
    pub fn count_hinted(self, counts_hinted: bool) -> Self {
        Self {
            counts_hinted,
            ..self
        }
    }

    /// Begins a call that is over at `deadline`, if there is one, at the latest. `random` as in [`Backoff::waits`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Failure, Judgement, Next, Retry};
    ///
    /// let mut attempts = Retry::default().start(Duration::ZERO, None, || 0.5);
    /// attempts.begin(Duration::ZERO);
    /// let failure = Failure { what: "busy".into(), judgement: Judgement::Transient };
    /// let next = attempts.end(Duration::from_secs(1), failure, None);
    /// assert_eq!(next, Next::Wait(Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn start<R: FnMut() -> f64>(
        &self,
        now: Duration,
        deadline: Option<Duration>,
        random: R,
    ) -> Attempts<R> {
        Attempts::new(self.clone(), now, deadline, random)
    }

    /// Does the work, again and again until it succeeds or no other attempt is to be made. `work` is told the number of the
    /// attempt, from 1; `judge` says what an error means. A result that is not good enough is an error here: `work` returns it
    /// as one.
    ///
    /// # Errors
    /// [`GaveUp`], with the last error and the record of all attempts.
    ///
    /// ```
    /// use llm_engine_retry::{Failure, Judgement, Reason, Retry, VirtualClock};
    ///
    /// let judge = |error: &u16| Failure { what: format!("status {error}"), judgement: Judgement::Permanent };
    /// let answer: Result<(), _> = Retry::default().call(&mut VirtualClock::default(), || 0.5, |_| Err(404), judge);
    /// let gave_up = answer.unwrap_err();
    /// assert_eq!((gave_up.last, gave_up.reason), (404, Reason::Permanent));
    /// assert_eq!(gave_up.attempts[0].failure, "status 404");
    /// ```
    pub fn call<T, E>(
        &self,
        clock: &mut impl Clock,
        random: impl FnMut() -> f64,
        mut work: impl FnMut(u32) -> Result<T, E>,
        judge: impl Fn(&E) -> Failure,
    ) -> Result<T, GaveUp<E>> {
        let mut attempts = self.start(clock.now(), None, random);
        loop {
            attempts.begin(clock.now());
            let last = match work(attempts.number()) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match attempts.end(clock.now(), judge(&last), None) {
                Next::Wait(wait) => clock.sleep(wait),
                Next::GiveUp(reason) => {
                    return Err(GaveUp {
                        last,
                        reason,
                        attempts: attempts.into_records(),
                    });
                }
            }
        }
    }
}

/// No other attempt was made.
///
/// ```
/// use llm_engine_retry::{Failure, Judgement, Retry, VirtualClock};
///
/// let judge = |error: &&str| Failure { what: error.to_string(), judgement: Judgement::Transient };
/// let answer: Result<(), _> = Retry::never().call(&mut VirtualClock::default(), || 0.5, |_| Err("busy"), judge);
/// assert_eq!(answer.unwrap_err().to_string(), "gave up after 1 attempt: no attempts are left");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("gave up after {} attempt{}: {reason}", attempts.len(), if attempts.len() == 1 { "" } else { "s" })]
pub struct GaveUp<E> {
    /// What the last attempt ended with.
    pub last: E,
    /// Why there was no other.
    pub reason: Reason,
    /// Every attempt, the first one first.
    pub attempts: Vec<Attempt>,
}

/// Why no other attempt was made.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Reason;
///
/// let reason = Reason::HintTooLong(Duration::from_secs(3600));
/// assert_eq!(reason.to_string(), "asked to wait for 1h, longer than allowed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It would fail again: [`Judgement::Permanent`](crate::Judgement::Permanent).
    Permanent,
    /// A part of the answer is in use: [`Judgement::Committed`](crate::Judgement::Committed).
    Committed,
    /// The [`Stop`] said so.
    Stopped,
    /// The next attempt would begin after the deadline.
    Deadline,
    /// The wait that was asked for is above [`Retry::longest_hint`].
    HintTooLong(Duration),
    /// The [`Budget`](crate::Budget) is used up.
    NoBudget,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent => f.write_str("another attempt would fail as well"),
            Self::Committed => f.write_str("the answer had begun"),
            Self::Stopped => f.write_str("no attempts are left"),
            Self::Deadline => f.write_str("another attempt would be after the deadline"),
            Self::HintTooLong(wait) => {
                let wait = humantime::format_duration(*wait);
                write!(f, "asked to wait for {wait}, longer than allowed")
            }
            Self::NoBudget => f.write_str("too many calls fail for all of them to be tried again"),
        }
    }
}
