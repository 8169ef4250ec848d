use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use llm_engine_gateway::{Dialect, MOST_DEPLOYMENTS, RemoteSetup, Timeouts};
use schemars::JsonSchema;
use serde::Deserialize;

use super::caller::environment;
use super::certificate::certificates;
use super::error::{Mistake, Source};
use super::model::duration;
use super::nano_usd::NanoUsd;
use super::policy::DeploymentLimits;
use super::quota::{LIMITS, RawLimits, RawMode, RawOutputReservation, RawQuota};
use super::spanned::Spanned;

/// How much a deployment is asked for at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Admission")]
pub(super) enum RawAdmission {
    /// As much as it is found to be able to take.
    Adaptive,
    /// All that comes, up to `concurrency`.
    Off,
}

/// In what a server is asked.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Dialect")]
enum RawDialect {
    /// As most servers are.
    #[default]
    Openai,
    /// LLM Engine's v1.
    LlmEngine,
}

/// A server that has the model, and what it may be asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Deployment")]
pub(super) struct RawDeployment {
    /// Where its API begins, such as `http://127.0.0.1:8000/v1`.
    url: Spanned<String>,
    /// What it calls the model.
    model: String,
    /// The environment variable that holds the key for it.
    api_key_env: Option<Spanned<String>>,
    /// Whether it is found out how much it can take (`adaptive`, as usual for `http`), or it is left to limit itself (`off`, as usual for
    /// `https`).
    admission: Option<RawAdmission>,
    /// In what it is asked: OpenAI's dialect, or LLM Engine's v1, which has text completions only.
    #[serde(default)]
    dialect: RawDialect,
    /// Where it tells how many requests wait in it, by vLLM's names, such as `http://127.0.0.1:8000/metrics`: a second sign of being full.
    metrics: Option<Spanned<String>>,
    /// How long it may take.
    #[serde(default)]
    timeouts: RawTimeouts,
    /// The file with the certificate authority that it is trusted by, beside the usual ones.
    certificate_authority: Option<Spanned<PathBuf>>,
    /// How many requests.
    requests: Option<Spanned<RawQuota>>,
    /// How many tokens of prompts.
    input_tokens: Option<Spanned<RawQuota>>,
    /// How many generated tokens.
    output_tokens: Option<Spanned<RawQuota>>,
    /// How many tokens of either kind.
    tokens: Option<Spanned<RawQuota>>,
    /// How many dollars, at the models' prices.
    usd: Option<Spanned<RawQuota<NanoUsd>>>,
    /// How many requests at the same time.
    concurrency: Option<NonZeroU32>,
    /// Whether it refuses, or only shows what it would refuse.
    mode: Option<RawMode>,
    /// How long a request waits in the server instead of being refused, at most 60s.
    hold: Option<Spanned<String>>,
    /// How many output tokens a request reserves that names no maximum.
    output_reservation: Option<RawOutputReservation>,
}

/// How long a deployment may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
struct RawTimeouts {
    /// To be connected.
    connect: Option<Spanned<String>>,
    /// Until the first token.
    first_token: Option<Spanned<String>>,
    /// Between two tokens.
    between_tokens: Option<Spanned<String>>,
    /// For the whole answer.
    total: Option<Spanned<String>>,
}

/// What runs a model, and what a deployment that is alone may be asked for.
pub(super) fn check_all(
    deployments: Spanned<Vec<Spanned<RawDeployment>>>,
    model: &str,
    source: &Source<'_>,
) -> Result<(Vec<RemoteSetup>, Option<DeploymentLimits>), Mistake> {
    let span = deployments.span();
    let deployments = deployments.into_inner();
    let count = deployments.len();
    if !(1..=MOST_DEPLOYMENTS).contains(&count) {
        let message = format!("a model has 1 to {MOST_DEPLOYMENTS} deployments, not {count}");
        return Err(source.error(span, message));
    }
    let mut remotes = Vec::with_capacity(count);
    let mut of_model = None;
    for (deployment, number) in deployments.into_iter().zip(1..) {
        let span = deployment.span();
        let (mut remote, limits) = check(deployment, source)?;
        if let Some(limits) = limits {
            if count == 1 {
                let model = model.to_owned();
                of_model = Some(DeploymentLimits { model, span, limits });
            } else if limits.hold.is_some() {
                let message =
                    "hold: where there are several deployments, a request goes to another one instead";
                return Err(source.error(span, message));
            } else {
                remote.limits = Some(limits.check(source)?);
            }
        }
        if let Some(limits) = &mut remote.limits {
            limits.name = format!("{model}.deployment-{number}");
        }
        remotes.push(remote);
    }
    Ok((remotes, of_model))
}

fn check(
    deployment: Spanned<RawDeployment>,
    source: &Source<'_>,
) -> Result<(RemoteSetup, Option<RawLimits>), Mistake> {
    let span = deployment.span();
    let RawDeployment {
        url,
        model,
        api_key_env,
        admission,
        dialect,
        metrics,
        timeouts,
        certificate_authority,
        requests,
        input_tokens,
        output_tokens,
        tokens,
        usd,
        concurrency,
        mode,
        hold,
        output_reservation,
    } = deployment.into_inner();
    check_url("url", &url, "http://127.0.0.1:8000/v1", source)?;
    if let Some(metrics) = &metrics {
        check_url("metrics", metrics, "http://127.0.0.1:8000/metrics", source)?;
    }
    let api_key = api_key_env.map(|name| environment(&name, source)).transpose()?;
    let authorities = certificate_authority.map(|path| certificates(&path, source));
    let is_usual = url.get_ref().starts_with("http:");
    let remote = RemoteSetup {
        is_adaptive: admission.map_or(is_usual, |admission| admission == RawAdmission::Adaptive),
        limits: None,
        dialect: match dialect {
            RawDialect::Openai => Dialect::OpenAi,
            RawDialect::LlmEngine => Dialect::LlmEngine,
        },
        metrics_url: metrics.map(Spanned::into_inner),
        url: url.into_inner(),
        model,
        api_key,
        timeouts: timeouts.check(source)?,
        certificate_authorities: authorities.transpose()?.unwrap_or_default(),
    };
    let limits = RawLimits {
        requests,
        input_tokens,
        output_tokens,
        tokens,
        usd,
        concurrency,
        mode,
        hold,
        output_reservation,
    };
    if limits.limit_something() {
        return Ok((remote, Some(limits)));
    }
    if mode.is_some() || limits.hold.is_some() || output_reservation.is_some() {
        let message = format!(
            "mode, hold and output_reservation say how a deployment is limited, but this one is not; give it {LIMITS}"
        );
        return Err(source.error(span, message));
    }
    Ok((remote, None))
}

/// A setting that is a URL, such as this example.
pub(super) fn check_url(
    setting: &str,
    url: &Spanned<String>,
    example: &str,
    source: &Source<'_>,
) -> Result<(), Mistake> {
    let text = url.get_ref();
    let uri: Option<Uri> = text.parse().ok();
    let is_good = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    if uri.as_ref().is_some_and(is_good) {
        return Ok(());
    }
    let message = format!("{setting} is '{text}'; it must begin with http:// or https://, as in {example}");
    Err(source.error(url.span(), message))
}

impl RawTimeouts {
    fn check(self, source: &Source<'_>) -> Result<Timeouts, Mistake> {
        let Self {
            connect,
            first_token,
            between_tokens,
            total,
        } = self;
        let check = |field: &str, text: Option<Spanned<String>>| -> Result<Option<Duration>, Mistake> {
            let Some(text) = text else { return Ok(None) };
            let checked = duration(&text, &format!("timeouts.{field}"), source)?;
            if checked.is_zero() {
                let message = format!(
                    "timeouts.{field} is '{}', in which nothing can happen",
                    text.get_ref()
                );
                return Err(source.error(text.span(), message));
            }
            Ok(Some(checked))
        };
        let usual = Timeouts::default();
        Ok(Timeouts {
            connect: check("connect", connect)?.unwrap_or(usual.connect),
            first_token: check("first_token", first_token)?.unwrap_or(usual.first_token),
            between_tokens: check("between_tokens", between_tokens)?.unwrap_or(usual.between_tokens),
            total: check("total", total)?,
        })
    }
}
