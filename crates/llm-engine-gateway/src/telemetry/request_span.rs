use std::time::Duration;

use llm_engine_limit::Name;
use llm_engine_wire::openai::{Kind, Request, Usage};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use crate::deployment::Deployment;
use crate::explain::Explanation;
use crate::{Arrival, TraceHeaders, milliseconds_up};

/// The span of a request, and within it that of the attempt that is being made. What is not in the sample is not recorded, but
/// passed on.
#[derive(Debug)]
pub(crate) struct RequestSpan {
    tracer: SdkTracer,
    operation: &'static str,
    request: Span,
    attempt: Option<Span>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) explanation: &'a Explanation,
    pub(crate) attempts: u32,
    pub(crate) usage: Usage,
    pub(crate) usage_estimated: bool,
    pub(crate) admitted_after: Option<Duration>,
    pub(crate) first_event_after: Option<Duration>,
}

/// As this server is called among those who offer models.
const PROVIDER: &str = "llm_engine";

impl RequestSpan {
    pub(super) fn begin(
        tracer: &SdkTracer,
        parent: &Context,
        request: &Request,
        arrival: &Arrival<'_>,
    ) -> Self {
        let operation = match request.kind {
            Kind::Chat => "chat",
            Kind::Completion => "text_completion",
            Kind::Embedding => "embeddings",
        };
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", operation),
            KeyValue::new("gen_ai.provider.name", PROVIDER),
            KeyValue::new("gen_ai.request.model", request.model.clone()),
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", arrival.route),
            KeyValue::new("llm_engine.request_id", arrival.request_id.to_owned()),
        ];
        attributes.extend(asked(request));
        let span = tracer
            .span_builder(format!("{operation} {}", request.model))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        Self {
            request: tracer.build_with_context(span, parent),
            tracer: tracer.clone(),
            operation,
            attempt: None,
        }
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.request.span_context().trace_id()
    }

    /// An attempt begins; gives what the deployment is told of it.
    pub(crate) fn sent(
        &mut self,
        deployment: &Deployment,
        stream: bool,
        max_output_tokens: u64,
    ) -> Option<Box<TraceHeaders>> {
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", self.operation),
            KeyValue::new("gen_ai.provider.name", PROVIDER),
            KeyValue::new("gen_ai.request.model", deployment.model().to_owned()),
            KeyValue::new("gen_ai.request.stream", stream),
        ];
        if max_output_tokens > 0 {
            attributes.push(KeyValue::new("gen_ai.request.max_tokens", int(max_output_tokens)));
        }
        if let Some((host, port)) = deployment.address() {
            // In whose dialect it is asked, whoever it is.
            attributes[1] = KeyValue::new("gen_ai.provider.name", "openai");
            attributes.push(KeyValue::new("server.address", host));
            attributes.push(KeyValue::new("server.port", i64::from(port)));
        }
        let span = self
            .tracer
            .span_builder(format!("{} {}", self.operation, deployment.model()))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes);
        let parent = Context::new().with_remote_span_context(self.request.span_context().clone());
        let attempt = self.tracer.build_with_context(span, &parent);
        let headers = TraceHeaders::of(attempt.span_context());
        self.attempt = Some(attempt);
        headers
    }

    /// The model that answers the attempt, as its deployment calls it.
    pub(crate) fn answered_by(&mut self, model: impl FnOnce() -> Option<String>) {
        if let Some(attempt) = &mut self.attempt
            && attempt.is_recording()
            && let Some(model) = model()
        {
            attempt.set_attribute(KeyValue::new("gen_ai.response.model", model));
        }
    }

    /// The request has ended, and its attempt with it.
    pub(crate) fn end(&mut self, outcome: &Outcome<'_>) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.set_attributes(tokens(outcome.usage));
            fail(&mut attempt, outcome, outcome.explanation.status >= 400);
            attempt.end();
        }
        if self.request.is_recording() {
            self.request.set_attributes(tokens(outcome.usage));
            self.request.set_attributes(became(outcome));
            // What was the caller's doing is no error of the server.
            fail(&mut self.request, outcome, outcome.explanation.status >= 500);
        }
        self.request.end();
    }
}

/// What its caller wants of the model, where it says so.
fn asked(request: &Request) -> impl Iterator<Item = KeyValue> {
    let sampling = &request.sampling;
    let max_tokens = sampling.max_completion_tokens.or(sampling.max_tokens);
    let decimal = |value: Option<f32>| value.map(|value| Value::F64(value.into()));
    [
        (
            "gen_ai.request.stream",
            request.stream.then_some(Value::Bool(true)),
        ),
        ("gen_ai.request.max_tokens", max_tokens.map(int)),
        ("gen_ai.request.temperature", decimal(sampling.temperature)),
        ("gen_ai.request.top_p", decimal(sampling.top_p)),
        (
            "gen_ai.request.top_k",
            sampling.top_k.map(|k| Value::I64(k.into())),
        ),
        ("gen_ai.request.seed", sampling.seed.map(Value::I64)),
        (
            "gen_ai.request.choice.count",
            sampling.n.filter(|answers| *answers != 1).map(int),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
}

fn tokens(usage: Usage) -> [KeyValue; 2] {
    [
        KeyValue::new("gen_ai.usage.input_tokens", int(usage.prompt_tokens)),
        KeyValue::new("gen_ai.usage.output_tokens", int(usage.completion_tokens)),
    ]
}

/// What became of a request: its status, and what the log says.
fn became(outcome: &Outcome<'_>) -> impl Iterator<Item = KeyValue> {
    let Outcome {
        explanation,
        attempts,
        usage: _,
        usage_estimated,
        admitted_after,
        first_event_after,
    } = *outcome;
    let refusal = explanation.refusal.as_ref();
    let policy = refusal.and_then(|refusal| refusal.policy);
    let retry_after = refusal.and_then(|refusal| refusal.retry_after);
    let seconds = |after: Duration| Value::F64(after.as_secs_f64());
    let milliseconds = |after: Duration| Value::F64(after.as_secs_f64() * 1e3);
    let text = |text: Name| Value::from(text.as_str());
    let held = Some(explanation.held).filter(|held| !held.is_zero());
    [
        (
            "http.response.status_code",
            Some(Value::I64(explanation.status.into())),
        ),
        (
            "gen_ai.response.model",
            (attempts > 0).then(|| text(explanation.model)),
        ),
        (
            "gen_ai.response.time_to_first_chunk",
            first_event_after.map(seconds),
        ),
        ("llm_engine.caller", Some(text(explanation.caller))),
        ("llm_engine.outcome", Some(explanation.outcome.into())),
        ("llm_engine.policy", policy.map(text)),
        (
            "llm_engine.retry_after_ms",
            retry_after.map(|wait| int(milliseconds_up(wait))),
        ),
        ("llm_engine.booked", refusal.map(|refusal| refusal.booked.into())),
        ("llm_engine.would_refuse", explanation.would_refuse().map(text)),
        ("llm_engine.attempts", Some(Value::I64(attempts.into()))),
        ("llm_engine.usage_estimated", Some(usage_estimated.into())),
        ("llm_engine.nano_usd", Some(int(explanation.charged.nano_usd))),
        ("llm_engine.held_ms", held.map(milliseconds)),
        ("llm_engine.admitted_after_ms", admitted_after.map(milliseconds)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
}

/// Says how it went wrong, if it did, and whether that was an error of who is seen in this span.
fn fail(span: &mut Span, outcome: &Outcome<'_>, is_error: bool) {
    let word = outcome.explanation.outcome;
    if word != "completed" {
        span.set_attribute(KeyValue::new("error.type", word));
    }
    if is_error {
        span.set_status(Status::error(word));
    }
}

/// Numbers that no request reaches are cut off.
fn int(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}
