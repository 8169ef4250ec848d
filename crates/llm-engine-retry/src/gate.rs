use std::time::Duration;

use crate::{Hint, Limits};

/// The one gate through which all calls of a process to one server, with one key, for one model leave: what one of them is
/// told, all know.
///
/// Without it, a thousand tasks that share a quota of ten a second are each refused again and again, and each gives up by
/// itself. With it the first refusals hold all, and they then leave one by one, at the pace that the server names or
/// that was learned.
///
/// It decides by what is known of the server:
///
/// - **Nothing yet**: as many calls may be without a verdict as have been admitted, and [`FIRST`](Self::FIRST) more; so a
///   server without limits soon gets all there is, and one with limits can refuse a few only.
/// - **The server names its limits** ([`Limits`]): the gate keeps the server's own account. What could be admitted when a call
///   arrived, less what has left since, plus what has come in since *that call left*, can leave now. Both times are
///   taken at departure, so how long an answer or the network takes does not matter.
/// - **It only refuses**: what was admitted at once between two refusals may leave at once the next time, after one call has tried;
///   beyond that, the calls leave at the rate that was admitted over all that time, and a little faster with each that
///   is. So a window that opens once a minute is used as soon as it opens, and a bucket that refills is not run against.
///
/// A time that is booked for one call ([`Hint::is_booked`]) is that call's alone: it passes the gate by
/// [`leave_booked`](Self::leave_booked), and all others leave after it.
///
/// The gate is told the time and never waits itself. Whoever runs it lets the calls ask in the order in which they came, one
/// at a time.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Gate, Hint, Leave};
///
/// let mut gate = Gate::default();
/// let now = Duration::ZERO;
/// let Leave::Now(first) = gate.ask(now) else { panic!("nothing is known yet") };
/// let hint = Hint { after: Duration::from_secs(2), is_booked: false };
/// gate.refused(now, first, Some(hint), None);
/// assert_eq!(gate.ask(now), Leave::At(Duration::from_secs(2)));
/// ```
#[derive(Debug, Clone)]
pub struct Gate {
    /// Calls that have left, without those at booked times: the server has counted those already.
    left: u64,
    /// Calls without a verdict, and how many there may be.
    pending: u64,
    window: f64,
    held_until: Duration,
    pace: Option<Pace>,
    /// The last call from which the pace is known: what earlier ones say is older.
    known_by: u64,
    epoch: Epoch,
    /// Refusals in a row about which nothing is known but that they are.
    silent_refusals: u32,
}

/// The account of what may leave: `room` calls at the time `at`, `per_second` more from then on, up to `most`.
#[derive(Debug, Clone, Copy)]
struct Pace {
    per_second: f64,
    at: Duration,
    room: f64,
    most: f64,
}

/// What has happened since the last refusal that was news.
#[derive(Debug, Clone, Copy, Default)]
struct Epoch {
    /// When that was, if there was one.
    began: Option<Duration>,
    /// How many had left by then: refusals of those are no news.
    left: u64,
    admitted: u64,
    /// How many may leave at once when the first call has been admitted.
    burst: f64,
}

/// A call that has left. To be handed back with the verdict, exactly once.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Gate, Leave};
///
/// let mut gate = Gate::default();
/// if let Leave::Now(departure) = gate.ask(Duration::ZERO) {
///     gate.admitted(Duration::from_millis(20), departure, None);
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without a verdict the gate believes that the call is still on its way"]
pub struct Departure {
    at: Duration,
    number: u64,
}

/// Whether a call may leave.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Gate, Leave};
///
/// assert!(matches!(Gate::default().ask(Duration::ZERO), Leave::Now(_)));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum Leave {
    /// It has left.
    Now(Departure),
    /// Not before this time; it is to ask again then.
    At(Duration),
    /// Not before there is a verdict about another call; it is to ask again then.
    AfterVerdict,
}

/// A pace a little below what the server names: clocks and networks are not exact, and at exactly that pace every
/// second call could be early.
const OF_NAMED_RATE: f64 = 0.99;
/// A learned rate is begun below what it was learned from, so that the bucket fills a little before it is emptied again.
const OF_LEARNED_RATE: f64 = 0.9;
/// By how much of itself a learned rate grows with each call that is admitted.
const GROWTH: f64 = 1.0 / 128.0;
/// How long a refusal holds all calls if nobody said for how long; twice as long after each.
const FIRST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(60);

impl Default for Gate {
    fn default() -> Self {
        Self {
            left: 0,
            pending: 0,
            window: Self::FIRST as f64,
            held_until: Duration::ZERO,
            pace: None,
            known_by: 0,
            epoch: Epoch::default(),
            silent_refusals: 0,
        }
    }
}

impl Gate {
    /// How many calls leave before there is any verdict.
    pub const FIRST: u64 = 20;

    /// A call would like to leave.
    pub fn ask(&mut self, now: Duration) -> Leave {
        if now < self.held_until {
            return Leave::At(self.held_until);
        }
        if self.pending as f64 >= self.window {
            return Leave::AfterVerdict;
        }
        if let Some(pace) = &mut self.pace {
            let room = pace.room(now);
            if room >= 1.0 {
                pace.set(now, room - 1.0);
            } else if pace.per_second > 0.0 {
                return Leave::At(pace.when_one());
            } else if self.pending > 0 {
                return Leave::AfterVerdict;
            }
        }
        self.left += 1;
        self.pending += 1;
        Leave::Now(self.departure(now))
    }

    /// Before this time no call leaves but those at booked times.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Gate;
    ///
    /// assert_eq!(Gate::default().held_until(), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn held_until(&self) -> Duration {
        self.held_until
    }

    /// A call leaves whose time this is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Gate, Hint, Leave};
    ///
    /// let mut gate = Gate::default();
    /// let Leave::Now(first) = gate.ask(Duration::ZERO) else { panic!("nothing is known yet") };
    /// let booked = Hint { after: Duration::from_secs(2), is_booked: true };
    /// gate.refused(Duration::ZERO, first, Some(booked), None);
    /// let again = gate.leave_booked(Duration::from_secs(2));
    /// gate.admitted(Duration::from_secs(3), again, None);
    /// ```
    pub fn leave_booked(&mut self, now: Duration) -> Departure {
        self.pending += 1;
        self.departure(now)
    }

    /// The call was let in, whatever has become of it there.
    pub fn admitted(&mut self, now: Duration, departure: Departure, limits: Option<Limits>) {
        self.pending = self.pending.saturating_sub(1);
        self.window += 1.0;
        self.silent_refusals = 0;
        if self.epoch.began.is_some() && departure.number <= self.epoch.left {
            // It left before the refusal that was known first, so it is a part of what was admitted at once until then.
            self.epoch.burst += 1.0;
        } else {
            self.epoch.admitted += 1;
        }
        if let Some(limits) = limits {
            self.keep_account(now, &departure, limits);
        } else if departure.number > self.epoch.left {
            self.learn_from_admission(now);
        }
    }

    /// The call was refused because there are too many.
    pub fn refused(
        &mut self,
        now: Duration,
        departure: Departure,
        hint: Option<Hint>,
        limits: Option<Limits>,
    ) {
        self.pending = self.pending.saturating_sub(1);
        let is_news = departure.number > self.epoch.left || self.epoch.began.is_none();
        let hold = match hint {
            Some(hint) => hint.after,
            None if is_news => self.silent_hold(),
            None => Duration::ZERO,
        };
        let until = now.saturating_add(hold);
        if is_news && limits.is_none_or(|limits| limits.remaining > 0) {
            // It is not the rate that the server minds, as far as it says: so perhaps how many there are at a time.
            self.window = (self.window / 2.0).max(1.0);
        }
        match limits {
            Some(limits) => {
                // Whoever comes at a booked time takes what there is then.
                let room = if hint.is_some_and(|hint| hint.is_booked) {
                    0.0
                } else {
                    1.0
                };
                let per_second = limits.per_second * OF_NAMED_RATE;
                self.set_pace(per_second, until, room);
            }
            None if is_news && self.epoch.admitted > 0 => self.learn_from_refusal(now, until),
            None => self.hold_pace(until),
        }
        // While nothing is admitted there is nothing new to learn, and the time without it counts.
        if self.epoch.admitted > 0 || self.epoch.began.is_none() {
            self.epoch = Epoch {
                began: Some(now),
                left: self.left,
                admitted: 0,
                ..self.epoch
            };
        }
        self.known_by = self.known_by.max(departure.number);
        self.held_until = self.held_until.max(until);
    }

    /// Nothing is known of what the server thought of the call: it broke off, or was given up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::{Gate, Leave};
    ///
    /// let mut gate = Gate::default();
    /// if let Leave::Now(departure) = gate.ask(Duration::ZERO) {
    ///     gate.failed(departure);
    /// }
    /// ```
    pub fn failed(&mut self, _departure: Departure) {
        self.pending = self.pending.saturating_sub(1);
    }

    fn departure(&self, now: Duration) -> Departure {
        Departure {
            at: now,
            number: self.left,
        }
    }

    fn keep_account(&mut self, now: Duration, departure: &Departure, limits: Limits) {
        if departure.number < self.known_by {
            return;
        }
        self.known_by = departure.number;
        let per_second = limits.per_second * OF_NAMED_RATE;
        let remaining = limits.remaining as f64;
        let since = now.saturating_sub(departure.at).as_secs_f64();
        let later = (self.left - departure.number) as f64;
        let most = self.pace.map_or(1.0, |pace| pace.most).max(remaining + 1.0);
        let room = remaining + per_second * since - later;
        self.pace = Some(Pace {
            per_second,
            at: now,
            room: room.min(most),
            most,
        });
        // It has said itself how many it would take at once.
        self.window = self.window.max(self.pending as f64 + remaining);
    }

    /// One call has tried whether the refusing is over: now those may follow that could before.
    fn learn_from_admission(&mut self, now: Duration) {
        let burst = std::mem::take(&mut self.epoch.burst);
        let Some(pace) = &mut self.pace else { return };
        pace.most = pace.most.max(burst);
        pace.per_second *= 1.0 + GROWTH;
        let more = if burst > 0.0 {
            burst - 1.0
        } else if pace.per_second > 0.0 {
            0.0
        } else {
            // No rate is known yet: for each that is admitted another may try.
            1.0
        };
        pace.set(now, pace.room(now) + more);
    }

    /// What was admitted since the refusal before tells the rate, and what of it came at once tells the burst.
    fn learn_from_refusal(&mut self, now: Duration, until: Duration) {
        let admitted = self.epoch.admitted as f64;
        let (per_second, paced) = match self.epoch.began {
            Some(began) => {
                let rate = admitted / now.saturating_sub(began).as_secs_f64().max(0.001);
                let since_hold = now.saturating_sub(self.held_until).as_secs_f64();
                let paced = self.pace.map_or(0.0, |pace| pace.per_second * since_hold);
                (OF_LEARNED_RATE * rate, paced)
            }
            // Nothing was refused before, so all of it came at once, and about the rate nothing is known.
            None => (0.0, 0.0),
        };
        self.epoch.burst = (admitted - paced).max(1.0);
        self.set_pace(per_second, until, 1.0);
    }

    fn hold_pace(&mut self, until: Duration) {
        if let Some(pace) = self.pace {
            self.set_pace(pace.per_second, until, 1.0);
        }
    }

    /// So much may leave at that time; or at a later one that was named before.
    fn set_pace(&mut self, per_second: f64, at: Duration, room: f64) {
        let before = self.pace;
        self.pace = Some(Pace {
            per_second,
            at: before.map_or(at, |pace| pace.at.max(at)),
            room,
            most: before.map_or(1.0, |pace| pace.most),
        });
    }

    fn silent_hold(&mut self) -> Duration {
        let doublings = self.silent_refusals.min(10);
        self.silent_refusals += 1;
        (FIRST_HOLD * 2_u32.pow(doublings)).min(LONGEST_HOLD)
    }
}

impl Pace {
    fn room(&self, now: Duration) -> f64 {
        let since = now.saturating_sub(self.at).as_secs_f64();
        (self.room + self.per_second * since).min(self.most)
    }

    fn set(&mut self, now: Duration, room: f64) {
        self.at = self.at.max(now);
        self.room = room;
    }

    /// When there is room for one.
    fn when_one(&self) -> Duration {
        let wait = Duration::try_from_secs_f64((1.0 - self.room) / self.per_second);
        // Rounded up, or it would be asked for again and again within the last nanosecond.
        let wait = wait
            .unwrap_or(Duration::MAX)
            .saturating_add(Duration::from_nanos(1));
        self.at.saturating_add(wait)
    }
}
