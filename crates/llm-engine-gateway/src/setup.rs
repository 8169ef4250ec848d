use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use llm_engine_limit::{Mode, Per, Period, Quota, QuotaError, Unit};
use opentelemetry_otlp::ExporterBuildError;
use rustls::pki_types::CertificateDer;

use crate::{ApiKeyDigest, JournalError, TelemetrySetup};

/// Everything that a gateway is made from.
#[derive(Debug)]
pub struct Setup {
    /// The models to serve.
    pub models: Vec<ModelSetup>,
    /// Who may use them.
    pub callers: Vec<CallerSetup>,
    /// The limits.
    pub policies: Vec<PolicySetup>,
    /// A folder for the sockets of model workers. It should be private to the process's user.
    pub socket_folder: PathBuf,
    /// Where budgets and long debts are kept over a restart. `None`: nowhere.
    pub journal: Option<PathBuf>,
    /// Through what remote servers are reached.
    pub proxies: ProxySetup,
    /// Where traces of requests go. `None`: nowhere.
    pub telemetry: Option<TelemetrySetup>,
    /// The time of day, by which calendar windows begin.
    pub wall_clock: fn() -> Timestamp,
}

/// A policy, in the names that the configuration uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicySetup {
    /// Its name.
    pub name: String,
    /// Which requests it applies to.
    pub matches: MatchSetup,
    /// What has a bucket of its own.
    pub per: Per,
    /// Whether it refuses, or only reports what it would refuse.
    pub mode: Mode,
    /// Amounts per window that refill steadily.
    pub quotas: Vec<(Unit, Quota)>,
    /// Amounts per calendar window.
    pub budgets: Vec<BudgetSetup>,
    /// The most requests that may run at the same time.
    pub concurrency: Option<NonZeroU32>,
    /// How long a request that it refuses may be held in the server until its time comes.
    pub hold: Duration,
    /// Whether a request that names no maximum reserves what all but a few answers of its model stay below, instead of the
    /// model's default maximum.
    pub learned_output: bool,
}

/// Which requests a policy applies to; what is `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchSetup {
    /// One caller, by its name.
    pub caller: Option<String>,
    /// One team, by its name.
    pub team: Option<String>,
    /// One end user, as the caller names it.
    pub user: Option<String>,
    /// One model, by any of its names.
    pub model: Option<String>,
    /// One of [`ROUTES`](crate::ROUTES).
    pub route: Option<String>,
}

/// An amount per calendar window.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetSetup {
    /// What it counts.
    pub unit: Unit,
    /// How much of it, at most [`Budget::MAX_LIMIT`](llm_engine_limit::Budget::MAX_LIMIT).
    pub limit: u64,
    /// The kind of window.
    pub period: Period,
    /// Where it is midnight when a window begins.
    pub zone: TimeZone,
}

/// One model.
#[derive(Debug)]
pub struct ModelSetup {
    /// The name by which requests ask for it, and its further names.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// What runs it: a worker, or one or several servers.
    pub deployments: Vec<DeploymentSetup>,
    /// Names of models that answer in its place while it can't, the first one first.
    pub fallbacks: Vec<String>,
    /// Whether v1 prompts go through the model's chat template.
    pub chat_template_for_prompts: bool,
    /// The most output tokens of a request that names no maximum.
    pub default_output_tokens: u64,
    /// What it costs.
    pub price: PriceSetup,
    /// The most requests that are with its deployments at the same time; where these are adaptive ones, with these. `None`: no
    /// bound but what is found out.
    pub concurrency: Option<NonZeroU32>,
    /// How long a request may wait for a place among them, as far as can be told beforehand.
    pub queue_wait: Duration,
    /// How many requests may wait.
    pub queue_length: usize,
}

/// What a model costs, in nano-dollars per million tokens: $0.15 per million are 150,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriceSetup {
    /// Tokens of prompts.
    pub input: u64,
    /// Tokens generated.
    pub output: u64,
}

/// What runs a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a few, at the start")]
pub enum DeploymentSetup {
    /// A process that the gateway starts and watches.
    Worker(WorkerSetup),
    /// An OpenAI-compatible server.
    Remote(RemoteSetup),
}

/// How to start a model worker.
#[derive(Debug)]
pub struct WorkerSetup {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. `--socket PATH` is appended, another path for each start.
    pub arguments: Vec<OsString>,
    /// Whether it is found out how much it can take, or always gets as much as it may.
    pub is_adaptive: bool,
}

/// Where an OpenAI-compatible server is.
#[derive(Clone, PartialEq)]
pub struct RemoteSetup {
    /// The URL up to and including `/v1`.
    pub url: String,
    /// Its own name of the model.
    pub model: String,
    /// In what it is asked.
    pub dialect: Dialect,
    /// Where it tells how many requests wait in it, by vLLM's names. `None`: nowhere.
    pub metrics_url: Option<String>,
    /// The credential, if it wants one.
    pub api_key: Option<String>,
    /// Whether it is found out how much it can take. If not, it is left to limit itself.
    pub is_adaptive: bool,
    /// What it may be asked for. A deployment that is alone is limited by policies of its model instead, which may book and hold.
    pub limits: Option<PolicySetup>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Who may have signed its certificate, besides the public authorities.
    pub certificate_authorities: Vec<CertificateDer<'static>>,
}

/// In what a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// OpenAI's.
    #[default]
    OpenAi,
    /// LLM Engine's v1, which has text completions only.
    LlmEngine,
}

/// How long a deployment may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection: name, TCP, proxy and TLS together.
    pub connect: Duration,
    /// From the request to the first token, where the answer is a stream.
    pub first_token: Duration,
    /// From one piece of a stream to the next.
    pub between_tokens: Duration,
    /// From the request to the end of its answer. `None`: ten minutes where it comes whole, and no bound on a stream.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_token: Duration::from_secs(120),
            between_tokens: Duration::from_secs(60),
            total: None,
        }
    }
}

/// The proxies through which remote servers are reached, as `HTTP_PROXY` and its like name them. Empty: directly.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySetup {
    /// The URL of the proxy to `http` servers.
    pub http: String,
    /// The URL of the proxy to `https` servers.
    pub https: String,
    /// Names, addresses and networks that are reached directly, with commas between them; `*` for all.
    pub no_proxy: String,
}

impl fmt::Debug for ProxySetup {
    /// Without the URLs, in which there may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySetup")
            .field("no_proxy", &self.no_proxy)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RemoteSetup {
    /// Without the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSetup")
            .field("url", &self.url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// One caller.
#[derive(Debug, Clone)]
pub struct CallerSetup {
    /// The name that logs use.
    pub name: String,
    /// The caller's team. `None`: a team of its own.
    pub team: Option<String>,
    /// What is known of the caller's API key.
    pub api_key: ApiKeyDigest,
    /// Whether it is believed for whom it asks.
    pub names_users: bool,
    /// Whether it may see what concerns other callers.
    pub is_operator: bool,
}

/// Why a gateway can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A model stands in for another that does not exist, or for itself.
    #[error("model {model}: there is no other model '{fallback}' that could answer in its place")]
    Fallback {
        /// The model.
        model: String,
        /// What should answer in its place.
        fallback: String,
    },
    /// The URL of a deployment is none.
    #[error("model {model}: '{url}' is not an http or https URL, or there is more in it than host and path")]
    Url {
        /// The model.
        model: String,
        /// The URL.
        url: String,
    },
    /// A budget can't be counted.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// What is kept over a restart can't be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The URL of a proxy is none that can be used.
    #[error(
        "'{url}' is not the URL of an HTTP proxy, such as http://proxy:3128; other kinds of proxies can't be used"
    )]
    Proxy {
        /// The URL, without user and password.
        url: String,
    },
    /// A certificate authority of a deployment is none.
    #[error("model {model}: its certificate authority can't be used: {error}")]
    Tls {
        /// The model.
        model: String,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// Traces can't be sent.
    #[error("telemetry: {0}")]
    Telemetry(#[from] ExporterBuildError),
    /// There is no TLS towards the collector of traces.
    #[error("telemetry: TLS can't be used: {0}")]
    TelemetryTls(rustls::Error),
    /// The credential can't be put into a header.
    #[error("model {model}: the API key of the deployment has characters that no HTTP header can carry")]
    ApiKey {
        /// The model.
        model: String,
    },
}
