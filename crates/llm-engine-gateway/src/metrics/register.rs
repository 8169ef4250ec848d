//! Under which names they are shown, and what is said of each.

use prometheus_client::registry::{Registry, Unit};

use super::Metrics;

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "llm_engine_requests",
            "Requests for models that have ended, by how",
            self.requests.clone(),
        );
        registry.register(
            "llm_engine_refusals",
            "Requests that were refused, by the policy that decided; without one, the model was full",
            self.refusals.clone(),
        );
        registry.register(
            "llm_engine_tokens",
            "Tokens that requests have used: kind is input or output",
            self.tokens.clone(),
        );
        registry.register_with_unit(
            "llm_engine_time_to_first_token",
            "From a request's arrival to the first token of its answer",
            Unit::Seconds,
            self.first_token.clone(),
        );
        registry.register_with_unit(
            "llm_engine_request_duration",
            "From a request's arrival to the end of its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "llm_engine_upstream_failures",
            "Attempts at which a model's deployment did not deliver, by what went wrong",
            self.failures.clone(),
        );
        registry.register(
            "llm_engine_worker_restarts",
            "How often a model's worker had to be started again",
            self.restarts.clone(),
        );
        registry.register(
            "llm_engine_running_requests",
            "Requests on which a model works now",
            self.running.clone(),
        );
        registry.register(
            "llm_engine_waiting_requests",
            "Requests that wait now for a place at a model",
            self.waiting.clone(),
        );
        registry.register(
            "llm_engine_late_requests",
            "Of the running ones, those whose first token is later than it is when the model is not busy",
            self.late.clone(),
        );
        registry.register(
            "llm_engine_request_limit",
            "Requests of the length that is usual now that may run at a time: what was found out, or the operator's bound",
            self.limit.clone(),
        );
        registry.register(
            "llm_engine_shed_requests",
            "Requests that a full model did not take, by why: estimated_wait, deadline, waited, queue_full",
            self.shed.clone(),
        );
        registry.register(
            "llm_engine_retries",
            "Requests that were sent to another deployment, by what went wrong at the one before; over_budget: they were not",
            self.retries.clone(),
        );
        registry.register(
            "llm_engine_queued_requests",
            "Requests that wait now for a place at a model, by their caller",
            self.queued.clone(),
        );
        registry.register(
            "llm_engine_retries_left",
            "Requests that may be sent to another deployment now, of those that failed without a hint: a fifth of the latest",
            self.retries_left.clone(),
        );
        registry.register(
            "llm_engine_deployments_set_aside",
            "How often nothing was sent to a deployment for a while: ejected, because it failed; cooling, because it said so",
            self.set_aside.clone(),
        );
        registry.register(
            "llm_engine_deployment_running_requests",
            "Requests that are with a deployment now, of models that have several",
            self.at_deployment.clone(),
        );
        registry.register(
            "llm_engine_deployment_well",
            "Whether requests are sent to a deployment: 0 while it is ejected",
            self.deployment_well.clone(),
        );
        registry.register(
            "llm_engine_held_requests",
            "Requests that are held now until their booked time",
            self.held.clone(),
        );
        registry.register(
            "llm_engine_bookings",
            "Times that were promised to refused requests: made; kept, because they came; lost, because nobody came",
            self.bookings.clone(),
        );
        registry.register(
            "llm_engine_open_bookings",
            "Times that are promised now",
            self.open_bookings.clone(),
        );
        registry.register(
            "llm_engine_limiter_rows",
            "Keys of whose quotas anything is remembered",
            self.limiter_rows.clone(),
        );
        registry.register(
            "llm_engine_limiter_shared_rows",
            "Tables that are full, so that new keys share their quotas; should be 0",
            self.limiter_shared_rows.clone(),
        );
        registry.register(
            "llm_engine_trace_spans",
            "Spans of requests for the collector of traces: sent; lost, because it did not take them",
            self.spans.clone(),
        );
    }
}
