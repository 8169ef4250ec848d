use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{Cost, Name};
use llm_engine_wire::openai::Usage;
use tokio::time::Instant;

use crate::deployment::Deployment;
use crate::explain::{Decision, Explanation, Explanations};
use crate::metrics::{Ended, ModelMetrics};
use crate::telemetry::Outcome;
use crate::trace::Trace;
use crate::{Arrival, Caller, CompleteError, Refusal, Route, TraceHeaders};

/// What is reported of one request: logged once, when this is dropped, however the request ended, kept to be explained, and
/// the end of its span.
#[derive(Debug)]
pub(crate) struct Record {
    explanations: Arc<Explanations>,
    metrics: Arc<ModelMetrics>,
    trace: Trace,
    /// The number of its route.
    route: u32,
    /// Shared only once nothing changes in it any more.
    explanation: Arc<Explanation>,
    begun: Instant,
    admitted_after: Option<Duration>,
    first_event_after: Option<Duration>,
    /// To whom it was sent, and how often.
    upstream: Option<Name>,
    attempts: u32,
    /// The model that answers in place of the one that was asked for.
    fallback: Option<Name>,
    usage: Usage,
    usage_estimated: bool,
}

impl Record {
    pub(crate) fn begin(
        explanations: &Arc<Explanations>,
        arrival: &Arrival<'_>,
        caller: &Caller,
        route: &Route,
        (at, trace): (Timestamp, Trace),
    ) -> Self {
        let explanation = Explanation {
            request_id: arrival.request_id.to_owned(),
            caller: caller.name,
            model: route.name,
            route: arrival.route,
            at,
            // What it is if nobody is left to hear how it ends. 499 is nginx's number for a client that hung up.
            outcome: "abandoned",
            status: 499,
            asked: Cost::NOTHING,
            charged: Cost::NOTHING,
            held: Duration::ZERO,
            decision: Decision::default(),
            refusal: None,
        };
        Self {
            explanations: Arc::clone(explanations),
            metrics: Arc::clone(&route.metrics),
            trace,
            route: arrival.route_number(),
            explanation: Arc::new(explanation),
            begun: Instant::now(),
            upstream: None,
            attempts: 0,
            fallback: None,
            admitted_after: None,
            first_event_after: None,
            usage: Usage::default(),
            usage_estimated: false,
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        &self.explanation.request_id
    }

    fn explanation(&mut self) -> &mut Explanation {
        Arc::make_mut(&mut self.explanation)
    }

    /// The policies have decided, the first time or again.
    pub(crate) fn decided(&mut self, asked: Cost, decision: Decision) {
        let explanation = self.explanation();
        (explanation.asked, explanation.decision) = (asked, decision);
    }

    /// Another model is asked in place of the one that was asked for.
    pub(crate) fn falls_back_to(&mut self, route: &Route) {
        self.fallback = Some(route.name);
        self.explanation().refusal = None;
    }

    /// It has been held for so long.
    pub(crate) fn held(&mut self, held: Duration) {
        self.explanation().held = held;
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.explanation().refusal = Some(refusal.clone());
    }

    pub(crate) fn admitted(&mut self) {
        self.admitted_after = Some(self.begun.elapsed());
    }

    /// It is sent to the deployment, for the first time or again; gives what that is told of its trace.
    pub(crate) fn sent(
        &mut self,
        deployment: &Deployment,
        stream: bool,
        max_output_tokens: u64,
    ) -> Option<Box<TraceHeaders>> {
        self.attempts += 1;
        self.upstream = Some(deployment.label);
        self.trace.sent(deployment, stream, max_output_tokens)
    }

    /// The model that answers, as its deployment calls it.
    pub(crate) fn answered_by(&mut self, model: impl FnOnce() -> Option<String>) {
        self.trace.answered_by(model);
    }

    pub(crate) fn first_event(&mut self) {
        self.first_event_after = Some(self.begun.elapsed());
    }

    pub(crate) fn usage(&mut self, usage: Usage, estimated: bool) {
        self.usage = usage;
        self.usage_estimated = estimated;
    }

    pub(crate) fn output_tokens(&self) -> u64 {
        self.usage.completion_tokens
    }

    /// What is charged if nothing else becomes known.
    pub(crate) fn charged(&mut self, cost: Cost) {
        self.explanation().charged = cost;
    }

    pub(crate) fn completed(&mut self) {
        let explanation = self.explanation();
        (explanation.outcome, explanation.status) = ("completed", 200);
    }

    pub(crate) fn ended_by(&mut self, error: &CompleteError) {
        match error {
            CompleteError::Refused(refusal) => self.metrics.refused(refusal),
            // Counted with its attempt.
            CompleteError::Failed(_) => {}
        }
        let explanation = self.explanation();
        (explanation.outcome, explanation.status) = (error.code(), error.status());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Explanation {
            request_id,
            caller,
            model,
            route,
            outcome,
            status,
            asked,
            charged,
            held,
            decision: _,
            refusal,
            at: _,
        } = &*self.explanation;
        let trace_id = self.trace.id();
        let after = self.begun.elapsed();
        tracing::info!(
            target: "llm_engine::request",
            request_id,
            caller = caller.as_str(),
            model = model.as_str(),
            route,
            outcome,
            status,
            policy = refusal.as_ref().and_then(|refusal| refusal.policy).map(Name::as_str),
            retry_after_ms = refusal.as_ref().and_then(|refusal| refusal.retry_after).map(milliseconds),
            booked = refusal.as_ref().map(|refusal| refusal.booked),
            would_refuse = self.explanation.would_refuse().map(Name::as_str),
            fallback = self.fallback.map(Name::as_str),
            upstream = self.upstream.map(Name::as_str),
            attempts = self.attempts,
            asked_input_tokens = asked.input_tokens,
            asked_output_tokens = asked.output_tokens,
            input_tokens = self.usage.prompt_tokens,
            output_tokens = self.usage.completion_tokens,
            usage_estimated = self.usage_estimated,
            nano_usd = charged.nano_usd,
            held_ms = (!held.is_zero()).then(|| milliseconds(*held)),
            admitted_after_ms = self.admitted_after.map(milliseconds),
            first_event_after_ms = self.first_event_after.map(milliseconds),
            duration_ms = milliseconds(after),
            trace_id = trace_id.as_ref().map(tracing::field::display),
            "request"
        );
        self.metrics.ended(Ended {
            route: self.route,
            outcome,
            status: *status,
            input_tokens: self.usage.prompt_tokens,
            output_tokens: self.usage.completion_tokens,
            first_token_after: self.first_event_after,
            after,
        });
        self.trace.end(&Outcome {
            explanation: &self.explanation,
            attempts: self.attempts,
            usage: self.usage,
            usage_estimated: self.usage_estimated,
            admitted_after: self.admitted_after,
            first_event_after: self.first_event_after,
        });
        self.explanations.keep(Arc::clone(&self.explanation));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Tenths of microseconds are noise in a log.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
