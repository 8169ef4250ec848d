//! Servers that refuse, in virtual time.

use std::time::Duration;

use llm_engine_retry::{Hint, Limits};

/// What a server answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) is_admitted: bool,
    pub(crate) hint: Option<Hint>,
    pub(crate) limits: Option<Limits>,
}

/// How much a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// Booked times, and its limits on every answer: LLM Engine.
    Everything,
    /// How long until there is room for one, the same for all.
    WhenThereIsRoom,
    /// The same in whole seconds.
    WholeSeconds,
    /// Nothing.
    Nothing,
}

/// `rate` a second, `burst` at once.
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    says: Says,
    level: f64,
    at: Duration,
    /// The last time that was promised: whoever comes before it is told a later one.
    booked_until: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: f64, burst: f64, says: Says) -> Self {
        Self {
            rate,
            burst,
            says,
            level: 0.0,
            at: Duration::ZERO,
            booked_until: Duration::ZERO,
        }
    }

    /// `is_booked`: the caller was told to come now.
    pub(crate) fn ask(&mut self, now: Duration, is_booked: bool) -> Verdict {
        let refilled = (now - self.at).as_secs_f64() * self.rate;
        self.level = (self.level - refilled).max(0.0);
        self.at = now;
        if is_booked {
            // Its place was taken from the bucket when it was booked.
            return self.verdict(true, None);
        }
        if self.level + 1.0 <= self.burst + 1e-6 && self.booked_until <= now {
            self.level += 1.0;
            return self.verdict(true, None);
        }
        let missing = Duration::from_secs_f64((self.level + 1.0 - self.burst).max(0.0) / self.rate);
        let hint = match self.says {
            Says::Everything => {
                self.level += 1.0;
                let after = missing.max(Duration::from_micros(1));
                self.booked_until = now + after;
                Some((after, true))
            }
            Says::WhenThereIsRoom => Some((missing.max(Duration::from_millis(1)), false)),
            Says::WholeSeconds => Some((Duration::from_secs(missing.as_secs() + 1), false)),
            Says::Nothing => None,
        };
        self.verdict(false, hint.map(|(after, is_booked)| Hint { after, is_booked }))
    }

    fn verdict(&self, is_admitted: bool, hint: Option<Hint>) -> Verdict {
        let limits = (self.says == Says::Everything).then(|| Limits {
            remaining: (0..u64::MAX)
                .take_while(|taken| self.level + *taken as f64 + 1.0 <= self.burst)
                .count() as u64,
            per_second: self.rate,
        });
        Verdict {
            is_admitted,
            hint,
            limits,
        }
    }
}

/// So many calls in each window of a clock, refused ones included.
pub(crate) struct Window {
    pub(crate) calls: u64,
    pub(crate) length: Duration,
    pub(crate) says: Says,
    pub(crate) number: u128,
    pub(crate) counted: u64,
}

impl Window {
    pub(crate) fn ask(&mut self, now: Duration) -> Verdict {
        let number = now.as_nanos() / self.length.as_nanos();
        if number != self.number {
            self.number = number;
            self.counted = 0;
        }
        self.counted += 1;
        let is_admitted = self.counted <= self.calls;
        let next = self.length * (u32::try_from(number).expect("the test is short") + 1);
        let hint = (self.says != Says::Nothing && !is_admitted).then_some(Hint {
            after: next - now,
            is_booked: false,
        });
        Verdict {
            is_admitted,
            hint,
            limits: None,
        }
    }
}
