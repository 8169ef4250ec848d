use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use llm_engine_limit::Policy;

use crate::ApiKeyDigest;

/// Everything that a gateway is made from. Callers, teams and models are known to the policies by their number: callers
/// and models by their position here, teams by the number in [`CallerSetup::team`].
#[derive(Debug)]
pub struct Setup {
    /// The models to serve.
    pub models: Vec<ModelSetup>,
    /// Who may use them.
    pub callers: Vec<CallerSetup>,
    /// The limits.
    pub policies: Vec<Policy>,
    /// A folder for the sockets of model workers. It should be private to the process's user.
    pub socket_folder: PathBuf,
}

/// One model.
#[derive(Debug)]
pub struct ModelSetup {
    /// The name by which requests ask for it, and its further names.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// What runs it.
    pub deployment: DeploymentSetup,
    /// Whether v1 prompts go through the model's chat template.
    pub chat_template_for_prompts: bool,
    /// The most output tokens of a request that names no maximum.
    pub default_output_tokens: u64,
    /// How many requests the deployment runs at the same time.
    pub concurrency: NonZeroUsize,
    /// How long a request may wait for a place among them.
    pub queue_wait: Duration,
    /// How many requests may wait.
    pub queue_length: usize,
}

/// What runs a model.
#[derive(Debug)]
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
}

/// Where an OpenAI-compatible server is.
#[derive(Clone)]
pub struct RemoteSetup {
    /// The URL up to and including `/v1`.
    pub url: String,
    /// Its own name of the model.
    pub model: String,
    /// The credential, if it wants one.
    pub api_key: Option<String>,
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
#[derive(Debug)]
pub struct CallerSetup {
    /// The name that logs use.
    pub name: String,
    /// The number of the caller's team. Callers of the same team share it; one without a team has a number of its own.
    pub team: u32,
    /// What is known of the caller's API key.
    pub api_key: ApiKeyDigest,
}

/// Why a gateway can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL of a deployment is none.
    #[error("model {model}: '{url}' is not an http or https URL")]
    Url {
        /// The model.
        model: String,
        /// The URL.
        url: String,
    },
    /// The credential can't be put into a header.
    #[error("model {model}: the API key of the deployment has characters that no HTTP header can carry")]
    ApiKey {
        /// The model.
        model: String,
    },
}
