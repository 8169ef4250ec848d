use std::collections::HashSet;
use std::time::Duration;

use hdrhistogram::Histogram;
use jiff::Timestamp;
use llm_engine_limit::{Cost, Counted, Mode, Name, Per, Policy, Subject, Time};
use serde_json::{Map, Value, json};

use super::counted::CallerTally;
use super::quotas::Span;
use super::{Simulation, Timeline, applying};
use crate::explain::{cost_json, in_units, unit_name};

/// What became of all requests.
#[derive(Debug, Clone)]
pub struct SimulationReport {
    /// When it began, on the wall.
    pub start: Timestamp,
    /// How long after that the last decision was made.
    pub elapsed: Duration,
    /// Of all requests.
    pub total: Tally,
    /// Of each policy, in their order.
    pub policies: Vec<PolicyReport>,
    /// Of each caller that has sent something: those of the setup first, each kind in the order of their first request.
    pub callers: Vec<CallerReport>,
    /// The models that are not in the setup, and the number of requests for each.
    pub unknown_models: Vec<(String, u64)>,
    /// What became of booked times.
    pub bookings: BookingCounts,
    /// What happened when.
    pub timeline: Timeline,
}

/// What became of some requests. A request that is refused and comes again is one request of several calls.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Calls, the first ones included. A request that is held makes no further call.
    pub calls: u64,
    /// Requests that were admitted.
    pub admitted: u64,
    /// Calls that were refused; of a policy: by it, alone or with others.
    pub refused: u64,
    /// Requests that were admitted and that a policy which only observes would have refused; of a policy: by it.
    pub would_refuse: u64,
    /// Requests that were held in the server; of a policy: because of it.
    pub held: u64,
    /// Requests that were refused and did not come again.
    pub lost: u64,
    /// How long after their first call requests were admitted; zero where that call was.
    pub waits: Waits,
    /// What the requests that were admitted really used.
    pub settled: Cost,
}

/// Many durations, in memory that does not grow with their number.
#[derive(Debug, Clone)]
pub struct Waits {
    /// In microseconds, to 1 %.
    histogram: Histogram<u64>,
    sum: Duration,
    longest: Duration,
}

/// Of one policy.
#[derive(Debug, Clone)]
pub struct PolicyReport {
    /// Its name.
    pub name: Name,
    /// Whether it refuses, or only observes.
    pub mode: Mode,
    /// Of the requests that it applies to.
    pub tally: Tally,
    /// Of what it limits.
    pub quotas: Vec<QuotaUse>,
}

/// How much of a quota was used.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaUse {
    /// What is counted.
    pub counted: Counted,
    /// The limit, of each key.
    pub limit: u64,
    /// What was settled, of all keys together. `None` where it is no amount.
    pub settled: Option<u64>,
    /// That, as a share of all that the quota could have admitted by the last decision under the keys that there were.
    pub share: f64,
    /// The highest share of the bucket of any key that was taken or booked at a time.
    pub peak: f64,
}

/// Of one caller.
#[derive(Debug, Clone)]
pub struct CallerReport {
    /// Its name.
    pub name: String,
    /// Whether it is in the setup.
    pub is_known: bool,
    /// Of its requests.
    pub tally: Tally,
    /// The policies that refused calls of it, and how many.
    pub refused_by: Vec<(Name, u64)>,
}

/// What became of booked times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookingCounts {
    /// Answers that told a time that is kept.
    pub told: u64,
    /// Of these, how many clients or held requests then came at their time, as far as the simulation decides about that.
    pub claimed: u64,
    /// Of these, how many were admitted.
    pub kept: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            histogram: Histogram::new(2).expect("2 digits are possible"),
            sum: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }
}

impl Waits {
    pub(super) fn add(&mut self, wait: Duration) {
        // Time ends after 2^60 ns.
        let microseconds = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.histogram
            .record(microseconds)
            .expect("it grows as far as time goes");
        self.sum = self.sum.saturating_add(wait);
        self.longest = self.longest.max(wait);
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        match u32::try_from(self.histogram.len()) {
            Ok(0) => Duration::ZERO,
            Ok(count) => self.sum / count,
            Err(_) => Duration::from_secs_f64(self.histogram.mean() / 1e6),
        }
    }

    /// What this share of them are not above, to 1 %.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_quantile(share)).min(self.longest)
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

impl Tally {
    pub(super) fn settle(&mut self, used: Cost) {
        let settled = &mut self.settled;
        settled.requests += used.requests;
        settled.input_tokens += used.input_tokens;
        settled.output_tokens += used.output_tokens;
        settled.nano_usd += used.nano_usd;
    }

    /// How many calls it took to have one request admitted; `None` if none was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
    pub fn calls_per_success(&self) -> Option<f64> {
        (self.admitted > 0).then(|| self.calls as f64 / self.admitted as f64)
    }

    fn to_json(&self) -> Map<String, Value> {
        let value = json!({
            "requests": self.requests,
            "calls": self.calls,
            "admitted": self.admitted,
            "refused": self.refused,
            "would_refuse": self.would_refuse,
            "held": self.held,
            "lost": self.lost,
            "calls_per_success": self.calls_per_success(),
            "wait_ms": {
                "mean": milliseconds(self.waits.mean()),
                "p50": milliseconds(self.waits.quantile(0.5)),
                "p95": milliseconds(self.waits.quantile(0.95)),
                "max": milliseconds(self.waits.longest()),
            },
            "settled": cost_json(self.settled),
        });
        match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

impl SimulationReport {
    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Self {
            start,
            elapsed,
            total,
            policies,
            callers,
            unknown_models,
            bookings,
            timeline,
        } = self;
        let unknown_models = unknown_models
            .iter()
            .map(|(name, count)| (name.clone(), Value::from(*count)));
        let moments = timeline.moments().iter().map(|moment| {
            json!({
                "admitted": moment.admitted,
                "refused": moment.refused,
                "held": moment.held,
                "used": moment.used,
            })
        });
        json!({
            "start": start.to_string(),
            "elapsed_seconds": elapsed.as_secs_f64(),
            "total": total.to_json(),
            "bookings": { "told": bookings.told, "claimed": bookings.claimed, "kept": bookings.kept },
            "policies": policies.iter().map(PolicyReport::to_json).collect::<Vec<_>>(),
            "callers": callers.iter().map(CallerReport::to_json).collect::<Vec<_>>(),
            "unknown_models": unknown_models.collect::<Map<_, _>>(),
            "timeline": {
                "width_seconds": timeline.width().as_secs_f64(),
                "moments": moments.collect::<Vec<_>>(),
            },
        })
    }
}

impl PolicyReport {
    fn to_json(&self) -> Value {
        let quotas = self.quotas.iter().map(|quota| {
            json!({
                "counts": unit_name(quota.counted),
                "limit": in_units(quota.counted, quota.limit),
                "limit_in_words": quota.counted.amount(quota.limit),
                "settled": quota.settled.map(|settled| in_units(quota.counted, settled)),
                "share": quota.share,
                "peak": quota.peak,
            })
        });
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        };
        let quotas = quotas.collect();
        with(
            [("policy", (*self.name).into()), ("mode", mode.into())],
            &self.tally,
            ("quotas", quotas),
        )
    }
}

impl CallerReport {
    fn to_json(&self) -> Value {
        let refused_by = self.refused_by.iter();
        let refused_by: Map<String, Value> = refused_by
            .map(|(policy, count)| (policy.to_string(), (*count).into()))
            .collect();
        let names = [
            ("caller", self.name.as_str().into()),
            ("known", self.is_known.into()),
        ];
        with(names, &self.tally, ("refused_by", refused_by.into()))
    }
}

/// A tally between what it is of and what else there is to say.
fn with<const N: usize>(first: [(&str, Value); N], tally: &Tally, last: (&str, Value)) -> Value {
    let first = first.into_iter().map(|(name, value)| (name.to_owned(), value));
    let last = (last.0.to_owned(), last.1);
    first
        .chain(tally.to_json())
        .chain([last])
        .collect::<Map<_, _>>()
        .into()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Simulation {
    pub(super) fn into_report(self) -> SimulationReport {
        let elapsed = self.counted.last_decision.since(Time::ZERO);
        let span = Span {
            start: self.start,
            end: self.wall(self.counted.last_decision),
            elapsed,
        };
        let Self {
            counted: report,
            policies,
            names,
            known_callers,
            start,
            ..
        } = self;
        let mut quotas = report.quotas;
        quotas.note_peaks(&report.timeline);
        let policy_report = |(index, tally): (usize, Tally)| {
            let policy = &policies.limits[index];
            let subjects = report.subjects.values();
            let applying = subjects.filter(|subject| applying(&policies, **subject) & 1 << index != 0);
            let keys: HashSet<_> = applying.map(|subject| key(policy, *subject)).collect();
            PolicyReport {
                name: policy.name,
                mode: policy.mode,
                tally,
                quotas: quotas.used(index, &span, keys.len()),
            }
        };
        let caller_report = |(number, caller): (usize, CallerTally)| {
            let names_of_policies = policies.limits.iter().map(|policy| policy.name);
            let refused_by = names_of_policies
                .zip(caller.refused_by)
                .filter(|(_, count)| *count > 0);
            let name = u32::try_from(number)
                .ok()
                .and_then(|number| names.callers.name(number));
            CallerReport {
                name: name.unwrap_or_default().to_owned(),
                is_known: number < known_callers,
                tally: caller.tally,
                refused_by: refused_by.collect(),
            }
        };
        let callers = report.callers.into_iter().enumerate();
        let unknown_models = report.unknown_models.into_iter();
        SimulationReport {
            start,
            elapsed,
            total: report.total,
            policies: report
                .policies
                .into_iter()
                .enumerate()
                .map(policy_report)
                .collect(),
            callers: callers
                .filter(|(_, caller)| caller.tally.requests > 0)
                .map(caller_report)
                .collect(),
            unknown_models: unknown_models
                .map(|(number, count)| (names.models.name(number).unwrap_or_default().to_owned(), count))
                .collect(),
            bookings: report.bookings,
            timeline: report.timeline,
        }
    }
}

/// What has a bucket of its own under the policy; what is counted together is zero.
fn key(policy: &Policy, subject: Subject) -> [u32; 4] {
    let Per {
        caller,
        team,
        model,
        route,
        // All requests come from one address, and policies that are counted per user apply to none of them.
        user: _,
        address: _,
    } = policy.per;
    let counted = |is_counted: bool, number: u32| if is_counted { number } else { 0 };
    [
        counted(caller, subject.caller),
        counted(team, subject.team),
        counted(model, subject.model),
        counted(route, subject.route),
    ]
}
