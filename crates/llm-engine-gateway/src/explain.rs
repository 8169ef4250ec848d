use std::collections::VecDeque;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use foldhash::fast::FixedState;
use jiff::Timestamp;
use llm_engine_limit::{Cost, Counted, Level, Name, Refused, Unit};
use parking_lot::Mutex;
use serde_json::{Value, json};
use thread_local::ThreadLocal;

use crate::Refusal;
use crate::refusal::{Seconds, milliseconds_up};

/// What became of one request, and what every policy saw of it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The request.
    pub request_id: String,
    /// Who sent it.
    pub caller: Name,
    /// The model that it asked for.
    pub model: Name,
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
    /// What the policies have decided, the last time.
    pub(crate) decision: Decision,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
}

/// How the quotas that apply to a request stood, and which of them said no. What each saw is put together when somebody asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decision {
    pub(crate) before: Vec<Level>,
    pub(crate) refused: Vec<Refused>,
    /// Those that said no only observe.
    pub(crate) is_observed: bool,
}

/// What one quota of a policy saw of a request.
#[derive(Debug, Clone, Copy)]
struct QuotaView {
    level: Level,
    asked: u64,
    verdict: Verdict,
    /// After which time it would have admitted the request.
    wait: Option<Duration>,
}

/// What a quota said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Admits,
    Refuses,
    /// It said no, but its policy only observes.
    WouldRefuse,
}

impl Verdict {
    fn in_words(self) -> &'static str {
        match self {
            Self::Admits => "admits",
            Self::Refuses => "refuses",
            Self::WouldRefuse => "would refuse (observed only)",
        }
    }
}

impl Decision {
    /// What every quota saw of a request for so much.
    fn views(&self, asked: Cost) -> impl Iterator<Item = QuotaView> {
        self.before.iter().map(move |level| {
            let is_same =
                |refused: &&Refused| refused.policy == level.policy && refused.counted == level.counted;
            let no = self.refused.iter().find(is_same);
            QuotaView {
                level: *level,
                asked: level.counted.unit().map_or(1, |unit| unit.of(asked)),
                verdict: match no {
                    None => Verdict::Admits,
                    Some(_) if self.is_observed => Verdict::WouldRefuse,
                    Some(_) => Verdict::Refuses,
                },
                wait: no.map(|refused| refused.wait),
            }
        })
    }
}

/// The explanations of the latest requests. Each thread keeps those of its own: one that freed what another has allocated
/// would wait for its memory, and make it wait.
#[derive(Debug, Default)]
pub(crate) struct Explanations {
    of_threads: ThreadLocal<Mutex<VecDeque<Kept>>>,
    /// How many there have been.
    count: AtomicU64,
}

/// An explanation, the oldest of its thread first.
#[derive(Debug)]
struct Kept {
    /// Its place among those of all threads.
    number: u64,
    /// Of its request's name, since they are looked through when somebody asks.
    digest: u64,
    explanation: Arc<Explanation>,
}

/// As many as about ten megabytes hold.
const MOST: u64 = 10_000;

impl Explanations {
    pub(crate) fn keep(&self, explanation: Arc<Explanation>) {
        let number = self.count.fetch_add(1, Relaxed);
        let kept = Kept {
            number,
            digest: digest(&explanation.request_id),
            explanation,
        };
        let mut latest = self.of_threads.get_or_default().lock();
        latest.push_back(kept);
        // Two, so that a thread that has many gets rid of them when others are busy.
        for _ in 0..2 {
            let oldest = latest.pop_front_if(|oldest| oldest.number + MOST <= number);
            drop(oldest);
        }
    }

    pub(crate) fn find(&self, request_id: &str) -> Option<Arc<Explanation>> {
        let asked = digest(request_id);
        let count = self.count.load(Relaxed);
        let is_it = |kept: &&Kept| {
            kept.digest == asked && kept.number + MOST >= count && kept.explanation.request_id == request_id
        };
        self.of_threads.iter().find_map(|latest| {
            let latest = latest.lock();
            let found = latest.iter().rev().find(is_it)?;
            Some(Arc::clone(&found.explanation))
        })
    }
}

fn digest(request_id: &str) -> u64 {
    FixedState::default().hash_one(request_id)
}

impl Explanation {
    /// The policy that would have refused it, but only observes.
    pub(crate) fn would_refuse(&self) -> Option<Name> {
        let Decision {
            refused, is_observed, ..
        } = &self.decision;
        let refused = refused.first().filter(|_| *is_observed)?;
        Some(refused.policy)
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quotas = self.decision.views(self.asked).map(|quota| {
            let level = quota.level;
            let in_units = |count| in_units(level.counted, count);
            json!({
                "policy": level.policy.as_str(),
                "counts": unit_name(level.counted),
                "limit": in_units(level.limit),
                "limit_in_words": level.counted.amount(level.limit),
                "remaining_before": in_units(level.remaining),
                "asked": in_units(quota.asked),
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
            "caller": self.caller.as_str(),
            "model": self.model.as_str(),
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
        if self.decision.before.is_empty() {
            writeln!(f, "No policy applies to it.")?;
        }
        for quota in self.decision.views(self.asked) {
            let level = quota.level;
            let units = |count| level.counted.units(count);
            write!(
                f,
                "Policy {} allows {}: {} could be taken, {} asked for; it {}",
                level.policy,
                level.counted.amount(level.limit),
                units(level.remaining),
                match level.counted.unit() {
                    Some(unit) => format!(
                        "{} (charged at last: {})",
                        units(quota.asked),
                        units(unit.of(self.charged))
                    ),
                    None => units(quota.asked),
                },
                quota.verdict.in_words()
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
