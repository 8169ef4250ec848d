use llm_engine_wire::openai::Request;
use opentelemetry::trace::TraceId;

use crate::deployment::Deployment;
use crate::telemetry::{Outcome, RequestSpan, Telemetry};
use crate::{Arrival, TraceHeaders};

/// The trace that a request belongs to. What has none, where none is begun, costs nothing.
#[derive(Debug)]
pub(crate) enum Trace {
    /// Nobody has told of one.
    None,
    /// Its caller's: its deployment is told of it, and nothing is added.
    PassedOn(Box<TraceHeaders>),
    /// Its caller's or its own, to which is added what happens here.
    Recorded(Box<RequestSpan>),
}

impl Trace {
    /// The trace of a request that has come just now.
    pub(crate) fn begin(telemetry: Option<&Telemetry>, request: &Request, arrival: &Arrival<'_>) -> Self {
        match (telemetry, &arrival.trace) {
            (Some(telemetry), _) => Self::Recorded(Box::new(telemetry.begin(request, arrival))),
            (None, Some(headers)) => Self::PassedOn(headers.clone()),
            (None, None) => Self::None,
        }
    }

    /// By which it is found.
    pub(crate) fn id(&self) -> Option<TraceId> {
        let id = match self {
            Self::None => return None,
            Self::PassedOn(headers) => headers.span().trace_id(),
            Self::Recorded(span) => span.trace_id(),
        };
        (id != TraceId::INVALID).then_some(id)
    }

    /// An attempt begins; gives what the deployment is told.
    pub(crate) fn sent(
        &mut self,
        deployment: &Deployment,
        stream: bool,
        max_output_tokens: u64,
    ) -> Option<Box<TraceHeaders>> {
        match self {
            Self::None => None,
            Self::PassedOn(headers) => Some(headers.clone()),
            Self::Recorded(span) => span.sent(deployment, stream, max_output_tokens),
        }
    }

    /// The model that answers the attempt, as its deployment calls it.
    pub(crate) fn answered_by(&mut self, model: impl FnOnce() -> Option<String>) {
        if let Self::Recorded(span) = self {
            span.answered_by(model);
        }
    }

    /// The request has ended.
    pub(crate) fn end(&mut self, outcome: &Outcome<'_>) {
        if let Self::Recorded(span) = self {
            span.end(outcome);
        }
    }
}
