use std::sync::Arc;
use std::time::Duration;

use llm_engine_wire::openai::Usage;
use tokio::time::Instant;

use crate::{Caller, CompleteError, Route};

/// What is reported of one request: written once, when this is dropped, however the request ended.
#[derive(Debug)]
pub(crate) struct Record {
    request_id: String,
    caller: Arc<str>,
    model: String,
    begun: Instant,
    admitted_after: Option<Duration>,
    first_event_after: Option<Duration>,
    usage: Usage,
    usage_estimated: bool,
    outcome: &'static str,
    status: u16,
}

impl Record {
    pub(crate) fn begin(request_id: &str, caller: &Caller, route: &Route) -> Self {
        Self {
            request_id: request_id.to_owned(),
            caller: Arc::clone(&caller.name),
            model: route.name.clone(),
            begun: Instant::now(),
            admitted_after: None,
            first_event_after: None,
            usage: Usage::default(),
            usage_estimated: false,
            // What it is if nobody is left to hear how it ends. 499 is nginx's number for a client that hung up.
            outcome: "abandoned",
            status: 499,
        }
    }

    pub(crate) fn admitted(&mut self) {
        self.admitted_after = Some(self.begun.elapsed());
    }

    pub(crate) fn first_event(&mut self) {
        self.first_event_after = Some(self.begun.elapsed());
    }

    pub(crate) fn usage(&mut self, usage: Usage, estimated: bool) {
        self.usage = usage;
        self.usage_estimated = estimated;
    }

    pub(crate) fn completed(&mut self) {
        (self.outcome, self.status) = ("completed", 200);
    }

    pub(crate) fn ended_by(&mut self, error: &CompleteError) {
        (self.outcome, self.status) = (error.code(), error.status());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        tracing::info!(
            target: "llm_engine::request",
            request_id = self.request_id,
            caller = &*self.caller,
            model = self.model,
            outcome = self.outcome,
            status = self.status,
            input_tokens = self.usage.prompt_tokens,
            output_tokens = self.usage.completion_tokens,
            usage_estimated = self.usage_estimated,
            admitted_after_ms = self.admitted_after.map(milliseconds),
            first_event_after_ms = self.first_event_after.map(milliseconds),
            duration_ms = milliseconds(self.begun.elapsed()),
            "request"
        );
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Tenths of microseconds are noise in a log.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
