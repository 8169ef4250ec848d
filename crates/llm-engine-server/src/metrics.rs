mod batches;

use std::sync::OnceLock;

use axum::http::StatusCode;
use llm_engine_gateway::Gateway;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub(crate) use batches::BatchMetrics;

/// What is counted for monitoring, in Prometheus's words.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    responses: Family<ResponseLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    /// 1 if the file could be used when it was last read, else 0: then what is in force is older than the file.
    last_reload_succeeded: Gauge,
    pub(crate) replay: ReplayMetrics,
    pub(crate) batches: BatchMetrics,
}

/// What is counted of requests with an idempotency key.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplayMetrics {
    repeated: Family<RepeatLabels, Counter>,
    /// Answers that had to go before their time.
    pub(crate) dropped_answers: Counter,
    /// Tombstones of such answers that had to go before theirs.
    pub(crate) dropped_tombstones: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepeatLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    /// As the router writes it, so that there are no more than routes.
    route: &'static str,
    status: u16,
}

/// What is counted of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteResponses {
    route: &'static str,
    /// By the places of [`STATUSES`], each found when it is first counted.
    counters: [OnceLock<Counter>; STATUSES.len()],
}

/// The statuses that there are, the most frequent first.
const STATUSES: [u16; 19] = [
    200, 429, 400, 401, 422, 404, 503, 402, 500, 502, 504, 501, 307, 405, 409, 413, 408, 431, 507,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

impl Metrics {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        let mut registry = Registry::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("llm_engine_build", "What is running", Info::new(version));
        let responses = Family::default();
        registry.register(
            "llm_engine_http_responses",
            "Answers of every route, by status, those to requests without a good key among them",
            responses.clone(),
        );
        gateway.register_metrics(&mut registry);
        let reloads = Family::default();
        registry.register(
            "llm_engine_config_reloads",
            "How often the configuration was read again, by whether it could be used",
            reloads.clone(),
        );
        let last_reload_succeeded = Gauge::default();
        last_reload_succeeded.set(1);
        registry.register(
            "llm_engine_config_last_reload_succeeded",
            "Whether the configuration in force is what its file says",
            last_reload_succeeded.clone(),
        );
        let replay = ReplayMetrics::default();
        replay.register(&mut registry);
        let batches = BatchMetrics::default();
        batches.register(&mut registry);
        Self {
            registry,
            responses,
            reloads,
            last_reload_succeeded,
            replay,
            batches,
        }
    }

    pub(crate) fn reloaded(&self, succeeded: bool) {
        let result = if succeeded { "ok" } else { "failed" };
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.last_reload_succeeded.set(succeeded.into());
    }

    pub(crate) fn responded(&self, responses: &RouteResponses, status: StatusCode) {
        let RouteResponses { route, counters } = responses;
        let status = status.as_u16();
        let counter = || {
            self.responses
                .get_or_create_owned(&ResponseLabels { route, status })
        };
        match STATUSES.iter().position(|known| *known == status) {
            Some(place) => counters[place].get_or_init(counter).inc(),
            None => counter().inc(),
        };
    }

    /// In the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl RouteResponses {
    pub(crate) fn of(route: &'static str) -> Self {
        Self {
            route,
            ..Self::default()
        }
    }
}

impl ReplayMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "llm_engine_repeated_requests",
            "Requests whose idempotency key was known already, by what they got",
            self.repeated.clone(),
        );
        registry.register(
            "llm_engine_replay_dropped_answers",
            "Stored answers that had to go before their time",
            self.dropped_answers.clone(),
        );
        registry.register(
            "llm_engine_replay_dropped_tombstones",
            "Stored answers of which, before their time, not even that they were given is known any more",
            self.dropped_tombstones.clone(),
        );
    }

    pub(crate) fn repeated(&self, outcome: &'static str) {
        self.repeated.get_or_create(&RepeatLabels { outcome }).inc();
    }
}
