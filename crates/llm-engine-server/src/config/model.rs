use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use llm_engine_gateway::{ApiKeyDigest, DeploymentSetup, ModelSetup, RemoteSetup, WorkerSetup};
use serde::Deserialize;
use toml::Spanned;

use super::caller::environment;
use super::error::{ConfigError, Source};
use super::{Config, defaults};

/// One checked model.
#[derive(Debug)]
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
    /// How many requests run at the same time.
    pub concurrency: NonZeroU32,
    /// How long a request may wait for a place among them.
    pub queue_wait: Duration,
    /// How many requests may wait.
    pub queue_length: usize,
}

/// What runs a model.
#[derive(Debug)]
pub enum Runner {
    /// A model file, run by a worker process that the server starts.
    Gguf(GgufModel),
    /// An OpenAI-compatible server.
    Remote(RemoteSetup),
}

/// A model file and how to run it.
#[derive(Debug, Clone)]
pub struct GgufModel {
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

/// `[models.NAME]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    gguf: Option<String>,
    sha256: Option<Spanned<String>>,
    #[serde(default)]
    chat_template_for_prompts: bool,
    context_tokens: Option<NonZeroU32>,
    threads: Option<NonZeroU32>,
    deployments: Option<Spanned<Vec<Spanned<RawDeployment>>>>,
    default_output_tokens: Option<NonZeroU32>,
    concurrency: Option<NonZeroU32>,
    queue_wait: Option<Spanned<String>>,
    queue_length: Option<usize>,
}

/// One of `deployments` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeployment {
    url: Spanned<String>,
    model: String,
    api_key_env: Option<Spanned<String>>,
}

/// As many sequences as the built-in model answers at once in a modest amount of memory.
const GGUF_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");
/// Remote servers batch well; this is a start that does not overrun a small one.
const REMOTE_CONCURRENCY: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");
const OUTPUT_TOKENS: NonZeroU32 = NonZeroU32::new(512).expect("512 is not 0");
const QUEUE_WAIT: Duration = Duration::from_secs(2);
const QUEUE_LENGTH: usize = 1024;

pub(super) fn check_all(
    models: BTreeMap<Spanned<String>, RawModel>,
    source: &Source<'_>,
) -> Result<Vec<ModelConfig>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(models.len());
    for (name, model) in models {
        for name in std::iter::once(&name).chain(&model.aliases) {
            if name.get_ref().is_empty() {
                return Err(source.error(name.span(), "the name of a model is empty"));
            }
            if !names.insert(name.get_ref().clone()) {
                return Err(source.error(
                    name.span(),
                    format!("two models have the name '{}'", name.get_ref()),
                ));
            }
        }
        checked.push(check(name, model, source)?);
    }
    Ok(checked)
}

/// The model of the built-in configuration.
pub(super) fn built_in() -> Result<Vec<ModelConfig>, ConfigError> {
    Ok(Config::parse(defaults::CONFIG, Path::new("built-in configuration"))?.models)
}

fn check(name: Spanned<String>, raw: RawModel, source: &Source<'_>) -> Result<ModelConfig, ConfigError> {
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
        concurrency,
        queue_wait,
        queue_length,
    } = raw;
    let (runner, usual_concurrency) = match (gguf, deployments) {
        (Some(gguf), None) => {
            let sha256 = sha256.map(|digest| check_digest(&digest, source)).transpose()?;
            let base = source.path.parent().unwrap_or(Path::new("")).to_owned();
            (
                Runner::Gguf(GgufModel {
                    source: gguf,
                    sha256,
                    base,
                    context_tokens,
                    threads,
                }),
                GGUF_CONCURRENCY,
            )
        }
        (None, Some(deployments)) => {
            if sha256.is_some() || context_tokens.is_some() || threads.is_some() {
                return Err(source.error(
                    span,
                    "sha256, context_tokens and threads belong to a gguf, not to deployments",
                ));
            }
            (
                Runner::Remote(check_deployments(deployments, source)?),
                REMOTE_CONCURRENCY,
            )
        }
        (Some(_), Some(_)) | (None, None) => {
            let message = format!(
                "model '{}' needs either gguf = \"FILE\" or deployments = [{{ url = \"…/v1\", model = \"…\" }}]",
                name.get_ref()
            );
            return Err(source.error(span, message));
        }
    };
    Ok(ModelConfig {
        name: name.into_inner(),
        aliases: aliases.into_iter().map(Spanned::into_inner).collect(),
        runner,
        chat_template_for_prompts,
        default_output_tokens: default_output_tokens.unwrap_or(OUTPUT_TOKENS).get().into(),
        concurrency: concurrency.unwrap_or(usual_concurrency),
        queue_wait: queue_wait.map_or(Ok(QUEUE_WAIT), |wait| duration(&wait, "queue_wait", source))?,
        queue_length: queue_length.unwrap_or(QUEUE_LENGTH),
    })
}

fn check_digest(digest: &Spanned<String>, source: &Source<'_>) -> Result<String, ConfigError> {
    let digits = digest.get_ref();
    match ApiKeyDigest::from_hex(digits) {
        Some(_) => Ok(digits.to_ascii_lowercase()),
        None => Err(source.error(digest.span(), "sha256 must be 64 hexadecimal digits")),
    }
}

fn check_deployments(
    deployments: Spanned<Vec<Spanned<RawDeployment>>>,
    source: &Source<'_>,
) -> Result<RemoteSetup, ConfigError> {
    let span = deployments.span();
    let mut deployments = deployments.into_inner().into_iter();
    let (Some(only), None) = (deployments.next(), deployments.next()) else {
        return Err(source.error(span, "a model has exactly one deployment in this version"));
    };
    let RawDeployment {
        url,
        model,
        api_key_env,
    } = only.into_inner();
    if !(url.get_ref().starts_with("http://") || url.get_ref().starts_with("https://")) {
        let message = format!(
            "url is '{}'; it must begin with http:// or https://",
            url.get_ref()
        );
        return Err(source.error(url.span(), message));
    }
    let api_key = api_key_env.map(|name| environment(&name, source)).transpose()?;
    Ok(RemoteSetup {
        url: url.into_inner(),
        model,
        api_key,
    })
}

/// A duration such as `"30s"` or `"1m"`.
pub(super) fn duration(
    text: &Spanned<String>,
    field: &str,
    source: &Source<'_>,
) -> Result<Duration, ConfigError> {
    humantime::parse_duration(text.get_ref()).map_err(|error| {
        let message = format!(
            "{field} is '{}'; it must be a duration such as \"30s\" or \"1m\": {error}",
            text.get_ref()
        );
        source.error(text.span(), message)
    })
}

impl ModelConfig {
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
            concurrency: NonZeroUsize::try_from(self.concurrency).unwrap_or(NonZeroUsize::MAX),
            queue_wait: self.queue_wait,
            queue_length: self.queue_length,
        })
    }
}
