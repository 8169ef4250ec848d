//! Traces of requests, for a collector that speaks OTLP over HTTP. Names are those of OpenTelemetry's conventions for generative
//! AI, and for what these have no name, those of the log.
//!
//! A span is made where the log record is, and ends with it. It never holds a key or what a prompt says.

mod outbox;
mod request_span;

use std::sync::Arc;

use http::HeaderMap;
use llm_engine_wire::openai::Request;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::Proxies;
use crate::metrics::Metrics;
use crate::{Arrival, SetupError};

pub(crate) use request_span::{Outcome, RequestSpan};

/// Where traces go, and which.
///
/// What is `None` is as the standard variables of the environment say: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
/// `OTEL_TRACES_SAMPLER`. `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES` count besides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TelemetrySetup {
    /// The URL of the collector, below which `/v1/traces` is.
    pub endpoint: Option<String>,
    /// What this server is called there.
    pub service_name: Option<String>,
    /// Which share of the requests is recorded whose caller does not say, from 0 to 1.
    pub sampling_ratio: Option<f64>,
    /// What the collector wants to see besides, such as a credential.
    pub headers: HeaderMap,
}

/// What begins the spans of requests.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: SdkTracer,
}

const SERVICE_NAME: &str = "llm-engine";
/// As what spans are known among those of other instruments.
const SCOPE: &str = "llm_engine";

impl Telemetry {
    /// Begins to send spans to the collector, in a task that ends when it is told to stop.
    pub(crate) fn start(
        setup: TelemetrySetup,
        proxies: &Arc<Proxies>,
        metrics: &Metrics,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SetupError> {
        let TelemetrySetup {
            endpoint,
            service_name,
            sampling_ratio,
            headers,
        } = setup;
        let resource = resource(service_name);
        let (outbox, sending) = outbox::outbox((endpoint, headers), proxies, &resource, metrics.spans())?;
        tasks.spawn(sending.until(stop));
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(outbox);
        if let Some(ratio) = sampling_ratio {
            let sampler = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler)));
        }
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION"));
        Ok(Self {
            tracer: provider.build().tracer_with_scope(scope.build()),
        })
    }

    /// The span of a request, in its caller's trace if it names one.
    pub(crate) fn begin(&self, request: &Request, arrival: &Arrival<'_>) -> RequestSpan {
        let mut parent = Context::new();
        if let Some(headers) = &arrival.trace {
            let named = headers.span();
            if named.is_valid() {
                parent = parent.with_remote_span_context(named);
            }
        }
        RequestSpan::begin(&self.tracer, &parent, request, arrival)
    }
}

/// What all spans have in common.
fn resource(service_name: Option<String>) -> Resource {
    let of_environment = || {
        let name = Resource::builder()
            .build()
            .get(&Key::from_static_str("service.name"))?;
        // What the SDK says where nobody has named it.
        let is_named = !name.as_str().starts_with("unknown_service");
        is_named.then(|| name.to_string())
    };
    let service_name = service_name.or_else(of_environment);
    Resource::builder()
        .with_service_name(service_name.unwrap_or_else(|| SERVICE_NAME.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}
