use std::time::Duration;

use crate::{Budget, Failure, Hint, Judgement, Progress, Reason, Retry, Waits};

/// The attempts of one call, as they are made: says after each failure what is next. The caller sleeps, and counts.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Failure, Hint, Judgement, Next, Retry};
///
/// let mut attempts = Retry::default().start(Duration::ZERO, None, || 0.5);
/// attempts.begin(Duration::ZERO);
/// let booked = Hint { after: Duration::from_millis(1430), is_booked: true };
/// let failure = Failure { what: "429".into(), judgement: Judgement::Hinted(booked) };
/// assert_eq!(attempts.end(Duration::ZERO, failure, None), Next::Wait(booked.after));
/// ```
#[derive(Debug)]
pub struct Attempts<R> {
    retry: Retry,
    waits: Waits<R>,
    deadline: Option<Duration>,
    /// When the first attempt began, and the current one.
    first: Duration,
    current: Duration,
    /// When the last one ended.
    ended: Duration,
    number: u32,
    /// Attempts that count.
    counted: u32,
    records: Vec<Attempt>,
}

/// One attempt that failed.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Failure, Judgement, Retry};
///
/// let mut attempts = Retry::default().start(Duration::ZERO, None, || 0.5);
/// attempts.begin(Duration::ZERO);
/// let failure = Failure { what: "timed out".into(), judgement: Judgement::Transient };
/// attempts.end(Duration::from_secs(3), failure, None);
/// let record = &attempts.into_records()[0];
/// assert_eq!((record.number, record.took, record.waited), (1, Duration::from_secs(3), Duration::ZERO));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it began, since the first one did.
    pub began: Duration,
    /// How long it took to fail.
    pub took: Duration,
    /// What went wrong.
    pub failure: String,
    /// How long there was nothing to do before it: since the one before failed, or since the call.
    pub waited: Duration,
}

/// What comes after a failed attempt.
///
/// ```
/// use llm_engine_retry::{Next, Reason};
///
/// assert_ne!(Next::GiveUp(Reason::Stopped), Next::GiveUp(Reason::Permanent));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another one, after this wait.
    Wait(Duration),
    /// Nothing.
    GiveUp(Reason),
}

impl<R: FnMut() -> f64> Attempts<R> {
    pub(crate) fn new(retry: Retry, now: Duration, deadline: Option<Duration>, random: R) -> Self {
        Self {
            waits: retry.backoff.waits(random),
            retry,
            deadline,
            first: now,
            current: now,
            ended: now,
            number: 0,
            counted: 0,
            records: Vec::new(),
        }
    }

    /// An attempt begins.
    pub fn begin(&mut self, now: Duration) {
        self.number += 1;
        self.current = now;
        if self.number == 1 {
            self.first = now;
        }
    }

    /// The number of the current attempt, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The attempt has failed. A retry of a failure about which nobody said when to come back is taken from the budget, if
    /// there is one.
    pub fn end(&mut self, now: Duration, failure: Failure, budget: Option<&mut Budget>) -> Next {
        let Failure { what, judgement } = failure;
        self.records.push(Attempt {
            number: self.number,
            began: self.current.saturating_sub(self.first),
            took: now.saturating_sub(self.current),
            failure: what,
            waited: self.current.saturating_sub(self.ended),
        });
        self.ended = now;
        let (hint, counts) = match judgement {
            Judgement::Permanent => return Next::GiveUp(Reason::Permanent),
            Judgement::Committed => return Next::GiveUp(Reason::Committed),
            Judgement::Transient => (None, true),
            Judgement::Hinted(hint) => (Some(hint), self.retry.counts_hinted),
        };
        self.counted += u32::from(counts);
        if let Some(hint) = hint.filter(|hint| hint.after > self.retry.longest_hint) {
            return Next::GiveUp(Reason::HintTooLong(hint.after));
        }
        let wait = self.wait(hint);
        let progress = Progress {
            attempts: self.counted,
            elapsed: now.saturating_sub(self.first),
            wait,
        };
        if self.retry.stop.stops(&progress) {
            return Next::GiveUp(Reason::Stopped);
        }
        let begins = now.saturating_add(wait);
        if self.deadline.is_some_and(|deadline| begins >= deadline) {
            return Next::GiveUp(Reason::Deadline);
        }
        if hint.is_none() && budget.is_some_and(|budget| !budget.retry(now)) {
            return Next::GiveUp(Reason::NoBudget);
        }
        Next::Wait(wait)
    }

    /// Every attempt that failed.
    #[must_use]
    pub fn into_records(self) -> Vec<Attempt> {
        self.records
    }

    /// A booked time is nobody else's: it is kept exactly. Another hint many may have got: it takes the place of the least
    /// wait, and what is random comes on top of it.
    fn wait(&mut self, hint: Option<Hint>) -> Duration {
        match hint {
            Some(hint) if hint.is_booked => hint.after,
            Some(hint) => {
                let least = self.retry.backoff.least();
                let wait = self.waits.next().unwrap_or_default();
                hint.after.saturating_add(wait.saturating_sub(least))
            }
            None => self.waits.next().unwrap_or_default(),
        }
    }
}
