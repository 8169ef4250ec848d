use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{Cost, Counted, Level, Refused, Unit};
use serde_json::{Value, json};

use crate::Refusal;
use crate::refusal::{Seconds, milliseconds_up};

/// What became of one request, and what every policy saw of it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The request.
    pub request_id: String,
    /// Who sent it.
    pub caller: Arc<str>,
    /// The model that it asked for.
    pub model: String,
    /// The route by which it came.
    pub route: &'static str,
    /// When it came.
    pub at: Timestamp,
    /// How it ended, in a word.
    pub outcome: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What was reserved for it, or would have been.
    pub asked: Cost,
    /// What it was charged at last.
    pub charged: Cost,
    /// How long it was held until its time came.
    pub held: Duration,
    /// The quotas that apply to it.
    pub quotas: Vec<QuotaView>,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
}

/// What one quota of a policy saw of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaView {
    /// The policy.
    pub policy: Arc<str>,
    /// What is counted.
    pub counted: Counted,
    /// The limit.
    pub limit: u64,
    /// What could have been taken before the request.
    pub before: u64,
    /// What the request asked for.
    pub asked: u64,
    /// What the quota said.
    pub verdict: Verdict,
    /// After which time it would have admitted the request.
    pub wait: Option<Duration>,
}

/// What a quota said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Admits,
    /// No.
    Refuses,
    /// No, but its policy only observes.
    WouldRefuse,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Admits => "admits",
            Self::Refuses => "refuses",
            Self::WouldRefuse => "would refuse (observed only)",
        }
    }
}

/// What every quota saw, from how they stood before the decision and which of them said no.
pub(crate) fn views(before: Vec<Level>, asked: Cost, refused: &[Refused], said: Verdict) -> Vec<QuotaView> {
    let view = |level: Level| {
        let no = refused
            .iter()
            .find(|refused| refused.policy == level.policy && refused.counted == level.counted);
        QuotaView {
            counted: level.counted,
            limit: level.limit,
            before: level.remaining,
            asked: level.counted.unit().map_or(1, |unit| unit.of(asked)),
            verdict: no.map_or(Verdict::Admits, |_| said),
            wait: no.map(|refused| refused.wait),
            policy: level.policy,
        }
    };
    before.into_iter().map(view).collect()
}

/// The explanations of the latest requests.
#[derive(Debug, Default)]
pub(crate) struct Explanations {
    /// The oldest first, each with a digest of its request's name: they are looked through only when somebody asks.
    latest: Mutex<VecDeque<(u64, Arc<Explanation>)>>,
}

/// As many as about ten megabytes hold.
const MOST: usize = 10_000;

impl Explanations {
    pub(crate) fn keep(&self, explanation: Arc<Explanation>) {
        let kept = (digest(&explanation.request_id), explanation);
        let mut latest = self.latest();
        latest.push_back(kept);
        let oldest = if latest.len() > MOST {
            latest.pop_front()
        } else {
            None
        };
        drop(latest);
        drop(oldest);
    }

    pub(crate) fn find(&self, request_id: &str) -> Option<Arc<Explanation>> {
        let asked = digest(request_id);
        let latest = self.latest();
        let mut found = latest.iter().rev().filter(|(digest, _)| *digest == asked);
        let (_, explanation) = found.find(|(_, explanation)| explanation.request_id == request_id)?;
        Some(Arc::clone(explanation))
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<Explanation>)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(request_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    request_id.hash(&mut hasher);
    hasher.finish()
}

impl Explanation {
    /// The policy that would have refused it, but only observes.
    pub(crate) fn would_refuse(&self) -> Option<&Arc<str>> {
        let mut quotas = self.quotas.iter();
        let quota = quotas.find(|quota| quota.verdict == Verdict::WouldRefuse)?;
        Some(&quota.policy)
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quotas = self.quotas.iter().map(|quota| {
            json!({
                "policy": *quota.policy,
                "counts": unit_name(quota.counted),
                "limit": in_units(quota.counted, quota.limit),
                "limit_in_words": quota.counted.amount(quota.limit),
                "remaining_before": in_units(quota.counted, quota.before),
                "asked": in_units(quota.counted, quota.asked),
                "verdict": match quota.verdict {
                    Verdict::Admits => "admits",
                    Verdict::Refuses => "refuses",
                    Verdict::WouldRefuse => "would_refuse",
                },
                "wait_ms": quota.wait.map(milliseconds_up),
            })
        });
        json!({
            "request_id": self.request_id,
            "caller": *self.caller,
            "model": self.model,
            "route": self.route,
            "time": self.at.to_string(),
            "outcome": self.outcome,
            "status": self.status,
            "asked": cost_json(self.asked),
            "charged": cost_json(self.charged),
            "held_ms": milliseconds_up(self.held),
            "policies": quotas.collect::<Vec<_>>(),
            "refusal": self.refusal.as_ref().map(|refusal| json!({
                "code": refusal.code.as_str(),
                "message": refusal.message,
                "retry_after_ms": refusal.retry_after.map(milliseconds_up),
                "exact": refusal.exact,
                "booked": refusal.booked,
            })),
            "explanation": self.to_string(),
        })
    }
}

pub(crate) fn cost_json(cost: Cost) -> Value {
    json!({
        "requests": cost.requests,
        "input_tokens": cost.input_tokens,
        "output_tokens": cost.output_tokens,
        "usd": dollars(cost.nano_usd),
    })
}

/// The name of what is counted, as in headers.
#[must_use]
pub fn unit_name(counted: Counted) -> &'static str {
    counted.unit().map_or("concurrency", Unit::name)
}

/// A count as a JSON number: money in dollars, everything else as it is.
#[must_use]
pub fn in_units(counted: Counted, count: u64) -> Value {
    match counted.unit() {
        Some(Unit::Usd) => dollars(count),
        _ => count.into(),
    }
}

/// Nano-dollars in dollars.
fn dollars(nano_usd: u64) -> Value {
    // Exact below 2^53 nano-dollars, nine million dollars; beyond that to a few nano-dollars.
    #[expect(clippy::cast_precision_loss, reason = "said above")]
    let dollars = nano_usd as f64 / 1e9;
    dollars.into()
}

impl fmt::Display for Explanation {
    /// For people, one line for each policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Request {} of {} for model {} at {}: {} (status {}).",
            self.request_id, self.caller, self.model, self.at, self.outcome, self.status
        )?;
        if self.quotas.is_empty() {
            writeln!(f, "No policy applies to it.")?;
        }
        for quota in &self.quotas {
            let units = |count| quota.counted.units(count);
            write!(
                f,
                "Policy {} allows {}: {} could be taken, {} asked for; it {}",
                quota.policy,
                quota.counted.amount(quota.limit),
                units(quota.before),
                match quota.counted.unit() {
                    Some(unit) => format!(
                        "{} (charged at last: {})",
                        units(quota.asked),
                        units(unit.of(self.charged))
                    ),
                    None => units(quota.asked),
                },
                quota.verdict.word()
            )?;
            match quota.wait {
                Some(Duration::MAX) => writeln!(f, ", and always would.")?,
                Some(wait) => writeln!(f, " for {}.", Seconds(wait))?,
                None => writeln!(f, ".")?,
            }
        }
        if !self.held.is_zero() {
            writeln!(f, "It was held for {} until its time came.", Seconds(self.held))?;
        }
        if let Some(refusal) = &self.refusal {
            writeln!(f, "The answer: {}", refusal.message)?;
            if refusal.booked {
                writeln!(f, "That time is kept for it, and for 3 s more.")?;
            }
        }
        Ok(())
    }
}
