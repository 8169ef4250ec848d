use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_limit::Time;

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Always as many.
    Fixed(NonZeroU32),
    /// As many as the models can take, but at most so many.
    Adaptive {
        /// The operator's maximum.
        most: NonZeroU32,
    },
}

/// The limit as it stands, and how it moves.
///
/// The models are full when first tokens are late: then more requests in flight only wait inside, where nobody can order
/// them. How many are late is by how many there were too many *when these were sent*, so the limit is cut to a little less than what was in flight
/// then without them: the *knee*. It grows while it is what holds requests back.
///
/// What it does takes effect only after a delay: what is sent now is late no sooner than when its first token is due. So
/// with every pace here is meant one per delay, or a provider with a base of seconds would be overrun long before that shows:
///
/// - Being late must stand for a part of that delay before it counts, and longer where long prompts are read: one of these makes
///   all wait behind it, and when it is read all is well again.
/// - Below the knee the limit grows by a tenth in each delay, above it by a fiftieth, and if six delays pass so, from then on
///   twice as fast in each: the models must have got faster. Never by more than a twentieth at a look.
/// - The cuts of one delay halve the limit at most: more only when what was sent since is late as well. So what is late for another
///   reason than too many requests does not take the limit to the ground before its times are learned anew. If halving it was
///   no use, it finds its knee as in the beginning.
#[derive(Debug)]
pub(crate) struct Law {
    kind: Limit,
    limit: f64,
    knee: f64,
    /// For how many delays it has grown above the knee.
    above: f64,
    /// By how many more than tolerated were late, at the last looks.
    late: VecDeque<f64>,
    next: Time,
    /// When the present cuts began, and below what they don't go.
    last_cut: Time,
    floor: f64,
}

/// What the law looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) in_flight: usize,
    /// Of these, those whose first token is late.
    pub(crate) late: usize,
    /// Of these, those that were sent after the last cuts began.
    pub(crate) late_since_cut: usize,
    /// How many were in flight when the late ones were sent.
    pub(crate) level: f64,
    /// Seconds until first tokens are due.
    pub(crate) due: f64,
    /// Seconds for which a prompt that is read makes others wait.
    pub(crate) reading: f64,
}

const START: f64 = 20.0;
const LEAST: f64 = 2.0;
const EVERY: f64 = 0.5;

impl Law {
    pub(crate) fn new(kind: Limit) -> Self {
        let limit = match kind {
            Limit::Fixed(limit) => f64::from(limit.get()),
            Limit::Adaptive { most } => START.min(f64::from(most.get())),
        };
        Self {
            kind,
            limit,
            knee: 0.0,
            // Nothing is known that it should be careful about.
            above: LONG_ABOVE,
            late: VecDeque::new(),
            next: Time::ZERO,
            last_cut: Time::ZERO,
            floor: LEAST,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least 1, and below 2^32"
        )]
        let limit = self.limit as usize;
        limit
    }

    /// When the next look is due.
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    pub(crate) fn last_cut(&self) -> Time {
        self.last_cut
    }

    pub(crate) fn look(&mut self, now: Time, look: Look) {
        self.next = now + Duration::from_secs_f64(EVERY);
        let Limit::Adaptive { most } = self.kind else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let [in_flight, late, late_since_cut] =
            [look.in_flight, look.late, look.late_since_cut].map(|count| count as f64);
        let tolerated = (in_flight * TOLERATED_PART).max(TOLERATED);
        let interval = (look.due * STANDS_DUE + look.reading * STANDS_READING).max(EVERY);
        let per_look = EVERY / (look.due.max(EVERY) + interval);
        let standing = self.standing(late - tolerated, interval);
        if standing > 0.0 {
            self.cut(now, look.level - standing - tolerated, late_since_cut > tolerated);
        } else if late > tolerated {
            // It does not stand yet.
        } else if in_flight >= 0.9 * self.limit {
            self.grow(per_look);
            self.limit = self.limit.min(f64::from(most.get()));
        } else {
            self.above = (self.above - per_look).max(0.0);
        }
    }

    /// By how many more than tolerated have always been late for so many seconds.
    fn standing(&mut self, late: f64, interval: f64) -> f64 {
        self.late.push_front(late);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let looks = (interval / EVERY).ceil().min(1_000.0) as usize;
        self.late.truncate(looks);
        if self.late.len() < looks {
            return 0.0;
        }
        self.late.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn cut(&mut self, now: Time, knee: f64, is_late_since: bool) {
        let below = (knee * BELOW_KNEE).max(LEAST);
        if below >= self.limit {
            return;
        }
        let was_halved = self.limit <= self.floor;
        if is_late_since {
            self.floor = (self.limit / 2.0).max(LEAST);
            self.last_cut = now;
        }
        (self.knee, self.above) = if below >= self.floor {
            (knee, 0.0)
        } else if is_late_since && was_halved {
            // It was no use: nothing is known any more.
            (0.0, LONG_ABOVE)
        } else {
            (self.floor, self.above)
        };
        self.limit = self.limit.min(below.max(self.floor));
    }

    fn grow(&mut self, per_look: f64) {
        let per_delay = if self.limit < self.knee {
            REGROWTH
        } else {
            let doublings = (self.above - HOLD).max(0.0);
            self.above = (self.above + per_look).min(LONG_ABOVE);
            CAREFUL * doublings.exp2()
        };
        let by = (self.limit * per_delay * per_look).max(per_look);
        self.limit += by.min((self.limit * FASTEST).max(per_look));
    }
}

/// Late ones that say nothing: this many, or this part of all in flight.
const TOLERATED: f64 = 2.0;
const TOLERATED_PART: f64 = 0.03;
/// Being late counts once it has stood for this part of the time in which first tokens are due, and for so many times as
/// long as a prompt that is read makes others wait.
const STANDS_DUE: f64 = 0.6;
const STANDS_READING: f64 = 6.0;
/// Where the limit is cut to, as a part of the knee.
const BELOW_KNEE: f64 = 0.95;
/// By what part the limit grows in a delay below the knee, and above it; there after so many delays twice as fast in each.
const REGROWTH: f64 = 0.1;
const CAREFUL: f64 = 0.02;
const HOLD: f64 = 6.0;
/// Delays after which growth is as fast as it gets.
const LONG_ABOVE: f64 = 20.0;
/// At a look.
const FASTEST: f64 = 0.05;
