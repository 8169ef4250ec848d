//! What is counted for monitoring, in Prometheus's words. Label values come from the configuration and from our own words,
//! never from a request.
//!
//! A request costs a few additions: what belongs to a model is found once, when the model is set up, and the rest by position.

mod register;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use llm_engine_admission::{Reason, Standing};
use llm_engine_limit::{Counts, Name};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::{Failure, ROUTES, Refusal};

/// What is counted of all models.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    first_token: Family<ModelLabels, Histogram, fn() -> Histogram>,
    duration: Family<ModelLabels, Histogram, fn() -> Histogram>,
    failures: Family<FailureLabels, Counter>,
    restarts: Family<ModelLabels, Counter>,
    running: Family<ModelLabels, Gauge>,
    waiting: Family<ModelLabels, Gauge>,
    late: Family<ModelLabels, Gauge>,
    limit: Family<ModelLabels, Gauge>,
    shed: Family<ReasonLabels, Counter>,
    queued: Family<QueuedLabels, Gauge>,
    retries: Family<ReasonLabels, Counter>,
    retries_left: Family<ModelLabels, Gauge>,
    set_aside: Family<AsideLabels, Counter>,
    at_deployment: Family<DeploymentLabels, Gauge>,
    deployment_well: Family<DeploymentLabels, Gauge>,
    held: Gauge,
    limiter_rows: Gauge,
    limiter_shared_rows: Gauge,
    open_bookings: Gauge,
    bookings: Family<BookingLabels, Counter>,
    spans: Family<SpanLabels, Counter>,
}

/// What is counted of one model.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    model: &'static str,
    all: Metrics,
    /// By route and outcome, each found when it is first counted.
    ended: Box<[[OnceLock<Counter>; OUTCOMES.len()]]>,
    input_tokens: Counter,
    output_tokens: Counter,
    first_token: Histogram,
    duration: Histogram,
    pub(crate) restarts: Counter,
}

/// How requests end, the most frequent first.
const OUTCOMES: [&str; 12] = [
    "completed",
    "rate_limited",
    "saturated",
    "abandoned",
    "upstream_failed",
    "upstream_limited",
    "upstream_rejected",
    "upstream_timeout",
    "never_fits",
    "budget_exhausted",
    "no_deployment",
    "draining",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    model: &'static str,
    outcome: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
    policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    model: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    model: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueuedLabels {
    model: &'static str,
    caller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeploymentLabels {
    model: &'static str,
    deployment: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AsideLabels {
    model: &'static str,
    deployment: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BookingLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    outcome: &'static str,
}

/// What is counted of spans that have ended.
#[derive(Debug, Clone)]
pub(crate) struct SpanCounts {
    /// The collector has them.
    pub(crate) sent: Counter,
    /// Nobody has.
    pub(crate) lost: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: &'static str,
}

/// From a hundredth of a second to some minutes, each bound about two and a half times the one before.
const SECONDS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
];

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = || Family::new_with_constructor(histogram as fn() -> Histogram);
        Self {
            requests: Family::default(),
            refusals: Family::default(),
            tokens: Family::default(),
            first_token: histograms(),
            duration: histograms(),
            failures: Family::default(),
            restarts: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            late: Family::default(),
            limit: Family::default(),
            shed: Family::default(),
            queued: Family::default(),
            retries: Family::default(),
            retries_left: Family::default(),
            set_aside: Family::default(),
            at_deployment: Family::default(),
            deployment_well: Family::default(),
            held: Gauge::default(),
            limiter_rows: Gauge::default(),
            limiter_shared_rows: Gauge::default(),
            open_bookings: Gauge::default(),
            bookings: Family::default(),
            spans: Family::default(),
        }
    }
}

impl Metrics {
    /// Nobody is known to wait.
    pub(crate) fn forget_queued(&self) {
        self.queued.clear();
    }

    pub(crate) fn spans(&self) -> SpanCounts {
        let count = |outcome| self.spans.get_or_create_owned(&SpanLabels { outcome });
        SpanCounts {
            sent: count("sent"),
            lost: count("lost"),
        }
    }

    pub(crate) fn of_model(&self, name: Name) -> ModelMetrics {
        let model = name.as_str();
        let labels = ModelLabels { model };
        let tokens = |kind| self.tokens.get_or_create_owned(&TokenLabels { model, kind });
        ModelMetrics {
            ended: ROUTES.iter().map(|_| Default::default()).collect(),
            input_tokens: tokens("input"),
            output_tokens: tokens("output"),
            first_token: self.first_token.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            restarts: self.restarts.get_or_create_owned(&labels),
            all: self.clone(),
            model,
        }
    }

    /// How the limits stand now.
    pub(crate) fn limits(&self, held: usize, counts: Counts) {
        let Counts {
            rows,
            shared_rows,
            open_bookings,
            booked,
            kept,
            lost,
        } = counts;
        set(&self.held, held as u64);
        set(&self.limiter_rows, rows);
        set(&self.limiter_shared_rows, shared_rows);
        set(&self.open_bookings, open_bookings);
        for (outcome, count) in [("made", booked), ("kept", kept), ("lost", lost)] {
            let counter = self.bookings.get_or_create(&BookingLabels { outcome });
            // Counted by the limiter; here only shown.
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// How a request has ended, for its model's metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Its place in [`ROUTES`].
    pub(crate) route: u32,
    pub(crate) outcome: &'static str,
    pub(crate) status: u16,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) first_token_after: Option<Duration>,
    pub(crate) after: Duration,
}

impl ModelMetrics {
    pub(crate) fn ended(&self, ended: Ended) {
        let Ended {
            route,
            outcome,
            status,
            input_tokens,
            output_tokens,
            first_token_after,
            after,
        } = ended;
        let of_route = usize::try_from(route)
            .ok()
            .and_then(|route| self.ended.get(route));
        let place = OUTCOMES.iter().position(|known| *known == outcome);
        if let (Some(of_route), Some(place)) = (of_route, place) {
            let counter = of_route[place].get_or_init(|| self.counter(route, outcome, status));
            counter.inc();
        } else {
            self.counter(route, outcome, status).inc();
        }
        self.input_tokens.inc_by(input_tokens);
        self.output_tokens.inc_by(output_tokens);
        if let Some(first_token_after) = first_token_after {
            self.first_token.observe(first_token_after.as_secs_f64());
        }
        self.duration.observe(after.as_secs_f64());
    }

    fn counter(&self, route: u32, outcome: &'static str, status: u16) -> Counter {
        let route = usize::try_from(route).ok().and_then(|route| ROUTES.get(route));
        self.all.requests.get_or_create_owned(&RequestLabels {
            route: route.copied().unwrap_or("other"),
            model: self.model,
            outcome,
            status,
        })
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        let policy = refusal.policy.map(Name::as_str).unwrap_or_default();
        let code = refusal.code.as_str();
        self.all
            .refusals
            .get_or_create(&RefusalLabels { code, policy })
            .inc();
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let Some(kind) = kind(failure) else { return };
        let model = self.model;
        self.all
            .failures
            .get_or_create(&FailureLabels { model, kind })
            .inc();
    }

    /// A request was not let in, or sent away from the queue.
    pub(crate) fn shed(&self, reason: Reason) {
        let reason = match reason {
            Reason::EstimatedWait => "estimated_wait",
            Reason::Deadline => "deadline",
            Reason::Waited => "waited",
            Reason::QueueFull => "queue_full",
        };
        let model = self.model;
        self.all.shed.get_or_create(&ReasonLabels { model, reason }).inc();
    }

    /// Another attempt is made, because the one before failed like this; or would be, but there have been too many.
    pub(crate) fn retried(&self, failure: &Failure, is_made: bool) {
        let Some(reason) = kind(failure) else { return };
        let reason = if is_made { reason } else { "over_budget" };
        let model = self.model;
        self.all
            .retries
            .get_or_create(&ReasonLabels { model, reason })
            .inc();
    }

    /// A deployment is not used for a while: it has failed, or has said that it does not want to be asked.
    pub(crate) fn set_aside(&self, deployment: Name, reason: &'static str) {
        let labels = AsideLabels {
            model: self.model,
            deployment: deployment.as_str(),
            reason,
        };
        self.all.set_aside.get_or_create(&labels).inc();
    }

    /// How things stand in front of the model.
    pub(crate) fn now(&self, standing: &Standing) {
        let model = self.model;
        let labels = ModelLabels { model };
        let all = &self.all;
        set(&all.running.get_or_create(&labels), standing.in_flight as u64);
        set(&all.late.get_or_create(&labels), standing.waiting as u64);
        set(&all.waiting.get_or_create(&labels), standing.queued as u64);
        set(&all.limit.get_or_create(&labels), standing.limit as u64);
    }

    /// So many requests of this caller wait now.
    pub(crate) fn queued(&self, caller: Name, queued: usize) {
        let labels = QueuedLabels {
            model: self.model,
            caller: caller.as_str(),
        };
        set(&self.all.queued.get_or_create(&labels), queued as u64);
    }

    /// So many other attempts may be made now.
    pub(crate) fn retries_left(&self, left: u64) {
        let model = self.model;
        set(&self.all.retries_left.get_or_create(&ModelLabels { model }), left);
    }

    /// How things stand with one of its deployments.
    pub(crate) fn deployment_now(&self, deployment: Name, running: usize, is_well: bool) {
        let labels = DeploymentLabels {
            model: self.model,
            deployment: deployment.as_str(),
        };
        set(&self.all.at_deployment.get_or_create(&labels), running as u64);
        set(&self.all.deployment_well.get_or_create(&labels), is_well.into());
    }
}

fn kind(failure: &Failure) -> Option<&'static str> {
    Some(match failure {
        Failure::Unreachable(_) => "unreachable",
        Failure::Broken(_) => "broken",
        Failure::TimedOut(_) => "timeout",
        Failure::Limited { .. } => "limited",
        Failure::Rejected { .. } => "rejected",
        Failure::Misconfigured(_) => "misconfigured",
        // It was us who broke off.
        Failure::CutOff => return None,
    })
}
