use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{Cost, Counted, Level, Time, Unit};

use super::counted::each_bit;
use super::{QuotaUse, Timeline};
use crate::calendars::calendar;
use crate::{BudgetSetup, PolicySetup};

/// All that policies limit, in their order.
#[derive(Debug)]
pub(super) struct Quotas {
    quotas: Vec<Quota>,
    of_policies: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Quota {
    /// What a full bucket holds.
    full: u64,
    kind: Kind,
    settled: u64,
    /// How long requests ran, all together.
    ran: Duration,
    peak: f64,
}

#[derive(Debug)]
enum Kind {
    Steady(Unit, llm_engine_limit::Quota),
    Budget(BudgetSetup),
    Concurrency,
}

/// How long it all took, by which what quotas could have admitted is measured.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) elapsed: Duration,
}

impl Quotas {
    pub(super) fn new(policies: &[PolicySetup]) -> Self {
        let mut all = Self {
            quotas: Vec::new(),
            of_policies: Vec::new(),
        };
        for policy in policies {
            let first = all.quotas.len();
            let mut add = |full, kind| {
                all.quotas.push(Quota {
                    full,
                    kind,
                    settled: 0,
                    ran: Duration::ZERO,
                    peak: 0.0,
                });
            };
            for (unit, quota) in &policy.quotas {
                add(quota.burst(), Kind::Steady(*unit, *quota));
            }
            for budget in &policy.budgets {
                add(budget.limit, Kind::Budget(budget.clone()));
            }
            if let Some(most) = policy.concurrency {
                add(most.get().into(), Kind::Concurrency);
            }
            all.of_policies.push(first..all.quotas.len());
        }
        all
    }

    pub(super) fn len(&self) -> usize {
        self.quotas.len()
    }

    /// Notes how much of the bucket of each quota is taken. The limiter tells levels in the order of its policies, of each
    /// its quotas, its budgets, and its concurrency.
    pub(super) fn note(&self, policies: u64, levels: &[Level], timeline: &mut Timeline) {
        let mut levels = levels.iter();
        each_bit(policies, |policy| {
            for (index, level) in self.of_policies[policy].clone().zip(&mut levels) {
                timeline.note_use(index, 1.0 - ratio(level.remaining, self.quotas[index].full));
            }
        });
    }

    pub(super) fn note_peaks(&mut self, timeline: &Timeline) {
        for moment in timeline.moments() {
            for (quota, used) in self.quotas.iter_mut().zip(&moment.used) {
                quota.peak = quota.peak.max(*used);
            }
        }
    }

    /// How much was used of what a policy limits, under so many keys.
    pub(super) fn used(&self, policy: usize, span: &Span, keys: usize) -> Vec<QuotaUse> {
        let own = &self.quotas[self.of_policies[policy].clone()];
        own.iter().map(|quota| quota.used(span, keys)).collect()
    }

    /// A request has ended that these policies count.
    pub(super) fn settle(&mut self, policies: u64, used: Cost, ran: Duration) {
        each_bit(policies, |policy| {
            for quota in &mut self.quotas[self.of_policies[policy].clone()] {
                match &quota.kind {
                    Kind::Steady(unit, _) => quota.settled += unit.of(used),
                    Kind::Budget(budget) => quota.settled += budget.unit.of(used),
                    Kind::Concurrency => quota.ran = quota.ran.saturating_add(ran),
                }
            }
        });
    }
}

impl Quota {
    /// `keys`: how many had a bucket.
    #[expect(clippy::cast_precision_loss, reason = "ratios of counts")]
    fn used(&self, span: &Span, keys: usize) -> QuotaUse {
        let seconds = span.elapsed.as_secs_f64();
        let keys = keys as f64;
        let (counted, limit, possible) = match &self.kind {
            Kind::Steady(unit, quota) => {
                let window = quota.window();
                let per_window = if quota.is_strict() {
                    quota.limit() - quota.burst()
                } else {
                    quota.limit()
                };
                let refilled = per_window as f64 * seconds / window.as_secs_f64();
                let counted = Counted::PerWindow { unit: *unit, window };
                (counted, quota.limit(), keys * (self.full as f64 + refilled))
            }
            Kind::Budget(budget) => {
                let BudgetSetup {
                    unit, limit, period, ..
                } = budget;
                let window = |wall| calendar(*period, &budget.zone, Time::ZERO, wall).window_at(Time::ZERO);
                let windows = window(span.end).saturating_sub(window(span.start)) + 1;
                let counted = Counted::PerPeriod {
                    unit: *unit,
                    period: *period,
                };
                (counted, *limit, keys * *limit as f64 * f64::from(windows))
            }
            Kind::Concurrency => (Counted::Concurrency, self.full, keys * self.full as f64 * seconds),
        };
        let (settled, taken) = match &self.kind {
            Kind::Concurrency => (None, self.ran.as_secs_f64()),
            Kind::Steady(..) | Kind::Budget(_) => (Some(self.settled), self.settled as f64),
        };
        QuotaUse {
            counted,
            limit,
            settled,
            share: if possible > 0.0 { taken / possible } else { 0.0 },
            peak: self.peak,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
