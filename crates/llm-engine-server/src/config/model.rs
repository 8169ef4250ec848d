use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use llm_engine_gateway::{
    ApiKeyDigest, DeploymentSetup, ModelSetup, PriceSetup, RemoteSetup, Timeouts, WorkerSetup,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::caller::environment;
use super::certificate::certificates;
use super::error::{ConfigError, Mistake, Mistakes, Place, Source};
use super::nano_usd::NanoUsd;
use super::policy::DeploymentLimits;
use super::quota::{LIMITS, RawLimits, RawMode, RawOutputReservation, RawQuota};
use super::spanned::Spanned;
use super::{Config, defaults};

/// One checked model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The name by which requests ask for it.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// What runs it.
    pub runner: Runner,
    /// Whether v1 prompts go through the model's chat template.
    pub chat_template_for_prompts: bool,
    /// The most output tokens of a request that names no maximum.
    pub default_output_tokens: u64,
    /// What it costs.
    pub price: PriceSetup,
    /// How many requests run at the same time.
    pub concurrency: NonZeroU32,
    /// How long a request may wait for a place among them.
    pub queue_wait: Duration,
    /// How many requests may wait.
    pub queue_length: usize,
}

/// What runs a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// A model file, run by a worker process that the server starts.
    Gguf(GgufModel),
    /// An OpenAI-compatible server.
    Remote(RemoteSetup),
}

/// A model file and how to run it.
#[derive(Debug, Clone)]
pub struct GgufModel {
    /// Where the configuration names it.
    pub place: Place,
    /// A path, or where to fetch it from.
    pub source: String,
    /// The digest that the file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// The folder that a relative path starts from.
    pub base: PathBuf,
    /// The most tokens, prompt and answer together, of one request. `None`: the worker's default.
    pub context_tokens: Option<NonZeroU32>,
    /// Threads of the model runner. `None`: the worker's default.
    pub threads: Option<NonZeroU32>,
}

/// A model: a file that is run here, or deployments on other servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Model")]
pub(super) struct RawModel {
    /// Further names.
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    /// A model file: a path, or `pip:PACKAGE==VERSION/MEMBER` for one inside a wheel.
    gguf: Option<Spanned<String>>,
    /// The digest that the file must have, in hexadecimal.
    sha256: Option<Spanned<String>>,
    /// Whether v1 prompts go through the model's chat template, so that they are answered.
    #[serde(default)]
    chat_template_for_prompts: bool,
    /// The most tokens, prompt and answer together, of one request.
    context_tokens: Option<NonZeroU32>,
    /// Threads of the model runner; by default one less than there are cores.
    threads: Option<NonZeroU32>,
    /// The servers that have it.
    deployments: Option<Spanned<Vec<Spanned<RawDeployment>>>>,
    /// The most output tokens of a request that names no maximum.
    default_output_tokens: Option<NonZeroU32>,
    /// What `usd` counts.
    #[serde(default)]
    price: RawPrice,
    /// Requests that run at the same time.
    concurrency: Option<NonZeroU32>,
    /// How long a request may wait for a place; after that it is refused.
    queue_wait: Option<Spanned<String>>,
    /// How many requests may wait.
    queue_length: Option<usize>,
}

/// What a model costs, as written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Price")]
struct RawPrice {
    /// Dollars for a million tokens of prompts.
    #[serde(default)]
    input_usd_per_million: NanoUsd,
    /// Dollars for a million generated tokens.
    #[serde(default)]
    output_usd_per_million: NanoUsd,
}

/// A server that has the model, and what it may be asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Deployment")]
struct RawDeployment {
    /// Where its API begins, such as `http://127.0.0.1:8000/v1`.
    url: Spanned<String>,
    /// What it calls the model.
    model: String,
    /// The environment variable that holds the key for it.
    api_key_env: Option<Spanned<String>>,
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

/// As many sequences as the built-in model answers at once in a modest amount of memory.
const GGUF_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");
/// Remote servers batch well; this is a start that does not overrun a small one.
const REMOTE_CONCURRENCY: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");
const OUTPUT_TOKENS: NonZeroU32 = NonZeroU32::new(512).expect("512 is not 0");
const QUEUE_WAIT: Duration = Duration::from_secs(2);
const QUEUE_LENGTH: usize = 1024;

/// The models in the order of their names, and what their deployments may be asked for.
pub(super) fn check_all(
    models: BTreeMap<Spanned<String>, RawModel>,
    source: &Source<'_>,
    mistakes: &mut Mistakes,
) -> (Vec<ModelConfig>, Vec<DeploymentLimits>) {
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(models.len());
    let mut deployments = Vec::new();
    for (name, model) in models {
        let model = check_names(&name, &model, &mut names, source).and_then(|()| check(name, model, source));
        if let Some((model, deployment)) = mistakes.keep(model) {
            checked.push(model);
            deployments.extend(deployment);
        }
    }
    (checked, deployments)
}

fn check_names(
    name: &Spanned<String>,
    model: &RawModel,
    others: &mut BTreeSet<String>,
    source: &Source<'_>,
) -> Result<(), Mistake> {
    for name in std::iter::once(name).chain(&model.aliases) {
        if name.get_ref().is_empty() {
            return Err(source.error(name.span(), "the name of a model is empty"));
        }
        if !others.insert(name.get_ref().clone()) {
            let message = format!("two models have the name '{}'", name.get_ref());
            return Err(source.error(name.span(), message));
        }
    }
    Ok(())
}

/// The model of the built-in configuration.
pub(super) fn built_in() -> Result<Vec<ModelConfig>, ConfigError> {
    Ok(Config::parse(defaults::CONFIG, Path::new("built-in configuration"))?.models)
}

fn check(
    name: Spanned<String>,
    raw: RawModel,
    source: &Source<'_>,
) -> Result<(ModelConfig, Option<DeploymentLimits>), Mistake> {
    let span = name.span();
    let RawModel {
        aliases,
        gguf,
        sha256,
        chat_template_for_prompts,
        context_tokens,
        threads,
        deployments,
        default_output_tokens,
        price,
        concurrency,
        queue_wait,
        queue_length,
    } = raw;
    let (runner, usual_concurrency, limits) = match (gguf, deployments) {
        (Some(gguf), None) => {
            let sha256 = sha256.map(|digest| check_digest(&digest, source)).transpose()?;
            let gguf = GgufModel {
                place: source.place(&gguf.span()),
                source: gguf.into_inner(),
                sha256,
                base: source.folder().to_owned(),
                context_tokens,
                threads,
            };
            (Runner::Gguf(gguf), GGUF_CONCURRENCY, None)
        }
        (None, Some(deployments)) => {
            if sha256.is_some() || context_tokens.is_some() || threads.is_some() {
                return Err(source.error(
                    span,
                    "sha256, context_tokens and threads belong to a gguf, not to deployments",
                ));
            }
            let (remote, limits) = check_deployments(deployments, name.get_ref(), source)?;
            (Runner::Remote(remote), REMOTE_CONCURRENCY, limits)
        }
        (Some(_), Some(_)) | (None, None) => {
            let message = format!(
                "model '{}' needs either gguf = \"FILE\" or deployments = [{{ url = \"…/v1\", model = \"…\" }}]",
                name.get_ref()
            );
            return Err(source.error(span, message));
        }
    };
    let model = ModelConfig {
        name: name.into_inner(),
        aliases: aliases.into_iter().map(Spanned::into_inner).collect(),
        runner,
        chat_template_for_prompts,
        default_output_tokens: default_output_tokens.unwrap_or(OUTPUT_TOKENS).get().into(),
        price: PriceSetup {
            input: price.input_usd_per_million.into(),
            output: price.output_usd_per_million.into(),
        },
        concurrency: concurrency.unwrap_or(usual_concurrency),
        queue_wait: queue_wait.map_or(Ok(QUEUE_WAIT), |wait| duration(&wait, "queue_wait", source))?,
        queue_length: queue_length.unwrap_or(QUEUE_LENGTH),
    };
    Ok((model, limits))
}

fn check_digest(digest: &Spanned<String>, source: &Source<'_>) -> Result<String, Mistake> {
    let digits = digest.get_ref();
    match ApiKeyDigest::from_hex(digits) {
        Some(_) => Ok(digits.to_ascii_lowercase()),
        None => Err(source.error(digest.span(), "sha256 must be 64 hexadecimal digits")),
    }
}

fn check_deployments(
    deployments: Spanned<Vec<Spanned<RawDeployment>>>,
    model_name: &str,
    source: &Source<'_>,
) -> Result<(RemoteSetup, Option<DeploymentLimits>), Mistake> {
    let span = deployments.span();
    let mut deployments = deployments.into_inner().into_iter();
    let (Some(only), None) = (deployments.next(), deployments.next()) else {
        return Err(source.error(span, "a model has exactly one deployment in this version"));
    };
    let span = only.span();
    let RawDeployment {
        url,
        model,
        api_key_env,
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
    } = only.into_inner();
    check_url("url", &url, "http://127.0.0.1:8000/v1", source)?;
    let api_key = api_key_env.map(|name| environment(&name, source)).transpose()?;
    let authorities = certificate_authority.map(|path| certificates(&path, source));
    let remote = RemoteSetup {
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
        let model = model_name.to_owned();
        return Ok((remote, Some(DeploymentLimits { model, span, limits })));
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

/// A duration such as `"30s"` or `"1m"`.
pub(super) fn duration(
    text: &Spanned<String>,
    field: &str,
    source: &Source<'_>,
) -> Result<Duration, Mistake> {
    humantime::parse_duration(text.get_ref()).map_err(|error| {
        let message = format!(
            "{field} is '{}'; it must be a duration such as \"30s\" or \"1m\": {error}",
            text.get_ref()
        );
        source.error(text.span(), message)
    })
}

impl PartialEq for GgufModel {
    /// Whether they are the same model: where it is written does not matter.
    fn eq(&self, other: &Self) -> bool {
        let Self {
            place: _,
            source,
            sha256,
            base,
            context_tokens,
            threads,
        } = self;
        (source, sha256, base, context_tokens, threads)
            == (
                &other.source,
                &other.sha256,
                &other.base,
                &other.context_tokens,
                &other.threads,
            )
    }
}

impl Eq for GgufModel {}

impl ModelConfig {
    /// All names by which requests can ask for it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .map(String::as_str)
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The gateway's part of it. `worker` says how to run a model file.
    ///
    /// # Errors
    /// What `worker` says.
    pub fn into_setup<E>(
        self,
        worker: impl FnOnce(&Self, &GgufModel) -> Result<WorkerSetup, E>,
    ) -> Result<ModelSetup, E> {
        let deployment = match &self.runner {
            Runner::Gguf(gguf) => DeploymentSetup::Worker(worker(&self, gguf)?),
            Runner::Remote(remote) => DeploymentSetup::Remote(remote.clone()),
        };
        Ok(ModelSetup {
            deployment,
            name: self.name,
            aliases: self.aliases,
            chat_template_for_prompts: self.chat_template_for_prompts,
            default_output_tokens: self.default_output_tokens,
            price: self.price,
            concurrency: NonZeroUsize::try_from(self.concurrency).unwrap_or(NonZeroUsize::MAX),
            queue_wait: self.queue_wait,
            queue_length: self.queue_length,
        })
    }
}
