use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use llm_engine_gateway::TelemetrySetup;
use schemars::JsonSchema;
use serde::Deserialize;

use super::caller::environment;
use super::deployment::check_url;
use super::error::{Mistake, Source};
use super::spanned::Spanned;

/// Where traces of requests go: to a collector that speaks OTLP over HTTP. What is left out is as the `OTEL_` variables of the
/// environment say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Telemetry")]
pub(super) struct RawTelemetry {
    /// The URL of the collector, below which `/v1/traces` is; by default `OTEL_EXPORTER_OTLP_ENDPOINT`, or
    /// `http://localhost:4318`.
    endpoint: Option<Spanned<String>>,
    /// What this server is called there; by default `OTEL_SERVICE_NAME`, or `llm-engine`.
    service_name: Option<String>,
    /// Which share of the requests is recorded whose caller does not say, from 0 to 1; by default `OTEL_TRACES_SAMPLER`, or all.
    sampling_ratio: Option<Spanned<f64>>,
    /// Headers that the collector wants to see, each with the environment variable that holds its value.
    #[serde(default)]
    headers_env: BTreeMap<Spanned<String>, Spanned<String>>,
}

pub(super) fn check(raw: RawTelemetry, source: &Source<'_>) -> Result<TelemetrySetup, Mistake> {
    let RawTelemetry {
        endpoint,
        service_name,
        sampling_ratio,
        headers_env,
    } = raw;
    if let Some(endpoint) = &endpoint {
        check_url("endpoint", endpoint, "http://127.0.0.1:4318", source)?;
    }
    if let Some(ratio) = &sampling_ratio
        && !(0.0..=1.0).contains(ratio.get_ref())
    {
        let message = format!("sampling_ratio is {}; it must be from 0 to 1", ratio.get_ref());
        return Err(source.error(ratio.span(), message));
    }
    let headers = headers_env
        .iter()
        .map(|(name, variable)| header(name, variable, source));
    Ok(TelemetrySetup {
        endpoint: endpoint.map(Spanned::into_inner),
        service_name,
        sampling_ratio: sampling_ratio.map(Spanned::into_inner),
        headers: headers.collect::<Result<HeaderMap, Mistake>>()?,
    })
}

fn header(
    name: &Spanned<String>,
    variable: &Spanned<String>,
    source: &Source<'_>,
) -> Result<(HeaderName, HeaderValue), Mistake> {
    let text = name.get_ref();
    let header: HeaderName = text.parse().map_err(|_| {
        let message = format!("headers_env has '{text}', which is no name of an HTTP header");
        source.error(name.span(), message)
    })?;
    let value = HeaderValue::try_from(environment(variable, source)?);
    let mut value = value.map_err(|_| {
        let message = format!(
            "the environment variable {} has characters that no HTTP header can carry",
            variable.get_ref()
        );
        source.error(variable.span(), message)
    })?;
    value.set_sensitive(true);
    Ok((header, value))
}
