//! A bucket as the textbook has it: a level that rises with time, takes away what is asked for, and spills over at the
//! top. Levels are exact fractions, `units · window`, so nothing is rounded but the clock.

use llm_engine_limit::{Budget, Cost, Quota, Time, Unit};

use crate::shapes::Limit;

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// Refills in one window.
    amount: i128,
    window_nanos: i128,
    tick_nanos: u64,
    /// Times the window, as all levels here.
    burst: i128,
    level: i128,
    /// The tick up to which it has been refilled, in nanoseconds.
    at: u64,
}

impl Pool {
    pub(crate) fn full(quota: &Quota) -> Self {
        let window_nanos = i128::try_from(quota.window().as_nanos()).expect("no test has longer windows");
        let burst = i128::from(quota.burst()) * window_nanos;
        Self {
            amount: refill_per_window(quota),
            window_nanos,
            tick_nanos: tick_nanos(quota),
            burst,
            level: burst,
            at: 0,
        }
    }

    /// Takes `units` if they are there. Nothing is always there, also in debt.
    pub(crate) fn take(&mut self, at: u64, units: u64) -> bool {
        self.refill(at);
        let asked = i128::from(units) * self.window_nanos;
        let fits = asked == 0 || asked <= self.level;
        if fits {
            self.level -= asked;
        }
        fits
    }

    /// Takes `units` whether they are there or not.
    pub(crate) fn charge(&mut self, at: u64, units: u64) {
        self.refill(at);
        self.level -= i128::from(units) * self.window_nanos;
    }

    /// Whole units that are there.
    pub(crate) fn remaining(&mut self, at: u64) -> u64 {
        self.refill(at);
        u64::try_from(self.level.max(0) / self.window_nanos).expect("never above the burst")
    }

    /// The first instant, in nanoseconds, at which `units` are there if nothing else happens; `None` if never.
    pub(crate) fn ready_at(&mut self, at: u64, units: u64) -> Option<u128> {
        self.refill(at);
        let asked = i128::from(units) * self.window_nanos;
        if asked > self.burst {
            return None;
        }
        if asked <= self.level {
            return Some(u128::from(at));
        }
        let nanos = div_ceil(asked - self.level, self.amount);
        let tick = i128::from(self.tick_nanos);
        let instant = div_ceil(i128::from(self.at) + nanos, tick) * tick;
        Some(u128::try_from(instant).expect("after the epoch"))
    }

    pub(crate) fn full_at(&mut self, at: u64) -> u128 {
        let burst = u64::try_from(self.burst / self.window_nanos).expect("it was a u64");
        self.ready_at(at, burst).expect("a burst fits")
    }

    fn refill(&mut self, at: u64) {
        let tick = at / self.tick_nanos * self.tick_nanos;
        if tick > self.at {
            self.level = self
                .burst
                .min(self.level + self.amount * i128::from(tick - self.at));
            self.at = tick;
        }
    }
}

/// A budget as an account book has it: what was spent in the window that is running.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    budget: Budget,
    window: u32,
    spent: u128,
}

impl Account {
    fn untouched(budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            window: 0,
            spent: 0,
        }
    }

    fn turn(&mut self, at: u64) {
        let window = self.budget.calendar().window_at(Time::from_nanos(at));
        if window > self.window {
            self.window = window;
            self.spent = 0;
        }
    }

    fn left(&self) -> u64 {
        let left = u128::from(self.budget.limit()).saturating_sub(self.spent);
        u64::try_from(left).expect("at most the limit")
    }
}

/// What stands behind one quota or budget for one key.
#[derive(Debug, Clone)]
pub(crate) enum Stock {
    Pool(Pool),
    Account(Account),
}

impl Stock {
    pub(crate) fn full(limit: &Limit) -> Self {
        match limit {
            Limit::Quota(quota) => Self::Pool(Pool::full(quota)),
            Limit::Budget(budget) => Self::Account(Account::untouched(budget)),
        }
    }

    /// Takes `units` if they are there. Nothing is always there, also in debt.
    pub(crate) fn take(&mut self, at: u64, units: u64) -> bool {
        match self {
            Self::Pool(pool) => pool.take(at, units),
            Self::Account(account) => {
                account.turn(at);
                let fits = units == 0 || units <= account.left();
                if fits {
                    account.spent += u128::from(units);
                }
                fits
            }
        }
    }

    /// Takes `units` whether they are there or not.
    pub(crate) fn charge(&mut self, at: u64, units: u64) {
        match self {
            Self::Pool(pool) => pool.charge(at, units),
            Self::Account(account) => {
                account.turn(at);
                account.spent += u128::from(units);
            }
        }
    }

    /// Whole units that are there.
    pub(crate) fn remaining(&mut self, at: u64) -> u64 {
        match self {
            Self::Pool(pool) => pool.remaining(at),
            Self::Account(account) => {
                account.turn(at);
                account.left()
            }
        }
    }

    /// The first instant, in nanoseconds, at which `units` are there if nothing else happens; `None` if never.
    pub(crate) fn ready_at(&mut self, at: u64, units: u64) -> Option<u128> {
        match self {
            Self::Pool(pool) => pool.ready_at(at, units),
            Self::Account(account) => {
                account.turn(at);
                if units > account.budget.limit() {
                    return None;
                }
                let is_there = units <= account.left();
                let turn = account.budget.calendar().next_turn(Time::from_nanos(at));
                Some(u128::from(if is_there { at } else { turn.as_nanos() }))
            }
        }
    }

    pub(crate) fn full_at(&mut self, at: u64) -> u128 {
        match self {
            Self::Pool(pool) => pool.full_at(at),
            Self::Account(account) => {
                let all = account.budget.limit();
                self.ready_at(at, all).expect("a limit fits")
            }
        }
    }
}

fn div_ceil(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor - 1) / divisor
}

/// What a quota's bucket regains in one window.
pub(crate) fn refill_per_window(quota: &Quota) -> i128 {
    let refilled = if quota.is_strict() {
        quota.limit() - quota.burst()
    } else {
        quota.limit()
    };
    i128::from(refilled)
}

pub(crate) fn tick_nanos(quota: &Quota) -> u64 {
    u64::try_from(quota.tick().as_nanos()).expect("a tick is at most a millisecond")
}

/// How much of a cost a unit counts.
pub(crate) fn counted(unit: Unit, cost: Cost) -> u64 {
    match unit {
        Unit::Requests => cost.requests,
        Unit::InputTokens => cost.input_tokens,
        Unit::OutputTokens => cost.output_tokens,
        Unit::Tokens => cost.input_tokens.saturating_add(cost.output_tokens),
        Unit::Usd => cost.nano_usd,
    }
}
