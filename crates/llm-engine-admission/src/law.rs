#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use llm_engine_limit::Time;

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Always as many.
    Fixed(NonZeroU32),
    /// As many as the models can take, by their tokens, but at most so many.
    Adaptive {
        /// The operator's maximum.
        most: NonZeroU32,
    },
}

/// The limit as it stands, and how it moves.
///
/// It is one on the *tokens* of the requests in flight, read and written: that is what fills a model's memory, and the same
/// number of requests is a quarter more tokens at one moment than at another.
///
/// The models are full when first tokens are late: then more requests in flight only wait inside, where nobody can order
/// them. A look that finds too many late says how many tokens are right: those that were in flight when that was sent whose first
/// token is due now, less what of it is late. All that was known then, so nothing is cut twice for the same lateness. A
/// look that finds that the limit holds requests back, and none late, says that a little more is right.
///
/// The limit is the highest of what the looks of the last moments say. While a long prompt is read all wait behind it, and
/// when it is read all is well again; only what is always late stands for too many.
///
/// All paces are meant per *delay*, which is the time until first tokens are due: what has become of a growth is not seen
/// before. Growth is careful at first, and doubles in each delay when there has been no cut for long: then the models have got faster.
#[derive(Debug)]
pub(crate) struct Law {
    kind: Limit,
    /// Tokens.
    limit: f64,
    /// So many requests may be in flight whatever their tokens.
    least: usize,
    /// Tokens of a request in flight, on average.
    mean: f64,
    /// The last looks, the latest first.
    looks: VecDeque<Looked>,
    /// For how many delays it has grown since the last cut.
    clear: f64,
    next: Time,
}

/// What the law looks at. Amounts are tokens of requests in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) requests: usize,
    pub(crate) tokens: u64,
    /// Of these, the prompts of those whose first token has not come.
    pub(crate) awaited: u64,
    /// Of these, those of which it is late.
    pub(crate) late: u64,
    /// What is kept free for callers that are behind.
    pub(crate) reserve: u64,
    /// Seconds until first tokens are due.
    pub(crate) due: f64,
    /// Seconds for which a prompt that is read makes others wait.
    pub(crate) reading: f64,
}

/// What a look has found.
#[derive(Debug, Clone, Copy)]
struct Looked {
    tokens: f64,
    /// Whether the limit was what held requests back.
    is_limiting: bool,
    /// How much is late, as a part of what may be.
    late: f64,
    /// What it says that the limit should be.
    right: f64,
}

impl Law {
    pub(crate) fn new(kind: Limit) -> Self {
        Self {
            kind,
            limit: 0.0,
            least: START,
            mean: 1.0,
            looks: VecDeque::new(),
            // Nothing is known that it should be careful about.
            clear: LONG_CLEAR,
            next: Time::ZERO,
        }
    }

    /// Whether a request of `input` tokens may be in flight beside so many requests with so many tokens, if `reserve` tokens are to be
    /// left.
    pub(crate) fn has_room(&self, requests: usize, tokens: u64, input: u64, reserve: u64) -> bool {
        match self.kind {
            Limit::Fixed(limit) => requests < limit.get() as usize,
            Limit::Adaptive { most } => {
                let input = float(input).min(self.limit * LARGEST);
                let has_tokens = float(tokens) + input + float(reserve) <= self.limit;
                requests < most.get() as usize && (requests < self.least || has_tokens)
            }
        }
    }

    /// So many requests of the length that is usual now may be in flight.
    pub(crate) fn requests(&self) -> usize {
        match self.kind {
            Limit::Fixed(limit) => limit.get() as usize,
            Limit::Adaptive { most } => whole(self.limit / self.mean)
                .max(self.least)
                .min(most.get() as usize),
        }
    }

    /// So many tokens may be in flight.
    pub(crate) fn tokens(&self) -> f64 {
        match self.kind {
            Limit::Fixed(limit) => f64::from(limit.get()) * self.mean,
            Limit::Adaptive { .. } => self.limit.max(self.mean * float(self.least as u64)),
        }
    }

    /// So many tokens so many requests of the length that is usual now have.
    pub(crate) fn tokens_of(&self, requests: usize) -> u64 {
        let tokens = float(requests as u64) * self.mean;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an amount"
        )]
        let tokens = tokens as u64;
        tokens
    }

    /// When the next look is due.
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    pub(crate) fn look(&mut self, now: Time, look: Look) {
        self.next = now + Duration::from_secs_f64(EVERY);
        let tokens = float(look.tokens);
        if look.requests > 0 {
            self.mean = (tokens / float(look.requests as u64)).max(1.0);
        }
        let Limit::Adaptive { most } = self.kind else {
            return;
        };
        let delay = looks(look.due);
        let moments = looks(look.due * STANDS_DUE + look.reading * STANDS_READING);
        let may_be_late = (float(look.awaited) * MAY_BE_LATE).max(self.mean * MAY_BE_LATE_REQUESTS);
        let late = float(look.late) / may_be_late;
        let past = self.looks.iter().take(moments - 1);
        if past.map(|looked| looked.late).fold(late, f64::min) > 1.0 {
            self.clear = 0.0;
            if self.limit <= 0.0 {
                // What is let in whatever its tokens is too much already.
                self.least = LEAST;
            }
        }
        let right = match self.looks.get(delay - 1).copied() {
            Some(then) if late > 1.0 => (then.tokens - (late - 1.0) * may_be_late) * BELOW,
            Some(then) if then.is_limiting => {
                self.tokens() * (1.0 + self.growth(&look, delay) * (1.0 - late))
            }
            _ => self.limit,
        };
        let is_full = tokens + float(look.reserve) >= NEARLY * self.tokens();
        self.looks.push_front(Looked {
            tokens,
            is_limiting: is_full || look.requests >= most.get() as usize,
            late,
            right,
        });
        self.looks.truncate(delay.max(moments));
        let said = self.looks.iter().take(moments).map(|looked| looked.right);
        let limit = said.fold(0.0, f64::max);
        if limit < self.limit {
            self.least = LEAST;
        }
        self.limit = limit;
    }

    /// By what part the limit grows now if nothing is late.
    fn growth(&mut self, look: &Look, delay: usize) -> f64 {
        // With room kept free nothing would be late even if there were too many: this is found out seldom.
        let is_probing = look.reserve > 0 && self.least == LEAST;
        let pace = if is_probing { PROBING } else { 1.0 } / float(delay as u64);
        self.clear = (self.clear + pace).min(LONG_CLEAR);
        let per_delay = (CAREFUL * (self.clear - HOLD).max(0.0).exp2()).min(FASTEST);
        per_delay * pace
    }
}

/// Looks in a time: at least one, at most those of some minutes.
fn looks(seconds: f64) -> usize {
    whole((seconds / EVERY).ceil().clamp(1.0, 1_000.0))
}

#[expect(clippy::cast_precision_loss, reason = "amounts")]
fn float(amount: u64) -> f64 {
    amount as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
fn whole(count: f64) -> usize {
    count as usize
}

/// Seconds between looks: several in the time in which a wait begins to be minded.
const EVERY: f64 = 0.5;
/// Requests before anything is known: no model is overrun by as many.
const START: usize = 20;
/// Requests that are always let in, so that there is something to learn from.
const LEAST: usize = 2;
/// The limit is what holds requests back if this part of it is in flight. The rest is what a long prompt waits for.
const NEARLY: f64 = 0.9;
/// A request has its turn at the latest when this part of the limit is free: else one that is longer than all the memory would wait
/// until nothing runs.
const LARGEST: f64 = 0.25;
/// This part of what is awaited, or so many requests, say nothing by being late: full models do most work if always a few wait for
/// them.
const MAY_BE_LATE: f64 = 0.03;
const MAY_BE_LATE_REQUESTS: f64 = 2.0;
/// Where the limit is cut to, as a part of what is right: what is too much only waits, and a little less costs next to nothing.
const BELOW: f64 = 0.96;
/// By what part the limit grows in a delay; after so many delays without a cut twice as fast in each, ...
const CAREFUL: f64 = 0.01;
const HOLD: f64 = 4.0;
/// ... up to this: what is sent too much before it is seen is at most as much.
const FASTEST: f64 = 0.4;
/// Delays after which growth is as fast as it gets.
const LONG_CLEAR: f64 = 12.0;
/// The pace of growth while room is kept free: the limit is tried out once in some minutes, and what is late then is one in hundreds.
const PROBING: f64 = 0.005;
/// Moments last for this part of the time in which first tokens are due, and for so many times as long as a prompt that is
/// read makes others wait.
const STANDS_DUE: f64 = 0.2;
const STANDS_READING: f64 = 5.0;
