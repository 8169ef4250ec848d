//! The configuration: one TOML file, checked once, or the built-in defaults.
//!
//! Errors say where: file, line, and what was meant. Secrets come from the environment or from files, or are given as
//! digests; of each only the digest is kept.

mod caller;
mod certificate;
mod defaults;
mod deployment;
mod error;
mod model;
mod nano_usd;
mod nearest;
mod policy;
mod quota;
mod replay;
mod spanned;
mod storage;
mod telemetry;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use llm_engine_gateway::{CallerSetup, PolicySetup, PriceSetup, TelemetrySetup};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use crate::connections::MOST_CONNECTIONS;
use crate::{BatchesSetup, FilesSetup, ReplaySetup, TlsSetup};

pub use error::{ConfigError, Mistake, Place};
pub use model::{GgufModel, ModelConfig, Runner};

use error::{Mistakes, Source};
use spanned::Spanned;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the configuration says so, if it does.
    pub listen_place: Option<Place>,
    /// The models.
    pub models: Vec<ModelConfig>,
    /// The callers.
    pub callers: Vec<CallerSetup>,
    /// Whether the only caller is the development key `root`, because the configuration names none.
    pub development_key: bool,
    /// The limits, those of deployments after those that are written as policies.
    pub policies: Vec<PolicySetup>,
    /// The proxies that are believed from where a request comes.
    pub trusted_proxies: Vec<IpNet>,
    /// Where budgets, long debts, files and batches are kept. `None`: the executable has a folder for it.
    pub state_folder: Option<PathBuf>,
    /// How much is kept of files.
    pub files: FilesSetup,
    /// How many batches there may be.
    pub batches: BatchesSetup,
    /// What is kept of answers to requests with an idempotency key.
    pub replay: ReplaySetup,
    /// By which the listener proves who it is.
    pub tls: Option<TlsSetup>,
    /// How many connections there may be.
    pub connections: NonZeroUsize,
    /// Where traces of requests go. `None`: nowhere.
    pub telemetry: Option<TelemetrySetup>,
}

/// The configuration of LLM Engine. Every section is optional; without models there is the built-in one, without callers
/// the development key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "LLM Engine")]
struct RawConfig {
    /// The address and port to listen on; by default 127.0.0.1:5000.
    listen: Option<Spanned<String>>,
    /// By the names by which requests ask for them.
    #[serde(default)]
    models: BTreeMap<Spanned<String>, model::RawModel>,
    /// By their names.
    #[serde(default)]
    callers: BTreeMap<Spanned<String>, caller::RawCaller>,
    /// The limits.
    #[serde(default)]
    policies: Vec<policy::RawPolicy>,
    /// Proxies, addresses or networks, that are believed from which address a request comes.
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
    /// Where budgets, long debts, files and batches are kept.
    state_folder: Option<PathBuf>,
    /// What is kept of files.
    #[serde(default)]
    files: storage::RawFiles,
    /// How many batches there may be.
    #[serde(default)]
    batches: storage::RawBatches,
    /// What is kept of answers to requests with an `Idempotency-Key`.
    #[serde(default)]
    replay: replay::RawReplay,
    /// By which the listener proves who it is; without it, it speaks HTTP.
    tls: Option<Spanned<certificate::RawTls>>,
    /// How many connections there may be.
    connections: Option<NonZeroUsize>,
    /// Where traces of requests go; without it, nowhere.
    telemetry: Option<telemetry::RawTelemetry>,
}

/// The key of the development caller: what the published client sends when nothing else is set.
pub const DEVELOPMENT_KEY: &str = "root";

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let source = Source { text: "", path };
            source.whole_file(format!("it can't be read: {error}"))
        })?;
        Self::parse(&text, path)
    }

    /// The JSON schema of a file, for editors.
    #[must_use]
    pub fn schema() -> Value {
        let generator = SchemaSettings::draft07().into_generator();
        generator.into_root_schema_for::<RawConfig>().to_value()
    }

    /// The built-in configuration: the small model, the development key, modest limits.
    ///
    /// # Errors
    /// Never, as the tests show; the defaults go the way of every file.
    pub fn built_in() -> Result<Self, ConfigError> {
        Self::parse(defaults::CONFIG, Path::new("built-in configuration"))
    }

    /// Checks the text of a file; `path` is what messages call it, and the folder that its relative paths start from.
    ///
    /// # Errors
    /// [`ConfigError`] names the line and what is wrong there.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source { text, path };
        let raw: RawConfig = toml::from_str(text).map_err(|error| source.toml_error(&error))?;
        let RawConfig {
            listen,
            models,
            callers,
            policies,
            trusted_proxies,
            state_folder,
            files,
            batches,
            replay,
            tls,
            connections,
            telemetry,
        } = raw;

        let mut mistakes = Mistakes::default();
        let (mut models, deployments) = model::check_all(models, &source, &mut mistakes);
        if models.is_empty() && mistakes.is_empty() {
            models = model::built_in()?;
        }
        let development_key = callers.is_empty();
        let callers = caller::check_all(callers, &source, &mut mistakes);
        let replay = mistakes.keep(replay::check(replay, &source));
        let files = mistakes.keep(storage::check_files(files, &source));
        let batches = mistakes.keep(storage::check_batches(batches, &source));
        let proxies = check_proxies(&trusted_proxies, development_key, &source);
        let proxies = mistakes.keep(proxies);
        let tls = tls.map(|tls| certificate::check(tls, &source)).transpose();
        let tls = mistakes.keep(tls).flatten();
        let telemetry = telemetry.map(|telemetry| telemetry::check(telemetry, &source));
        let telemetry = mistakes.keep(telemetry.transpose()).flatten();
        let listen_place = listen.as_ref().map(|listen| source.place(&listen.span()));
        let listen = mistakes.keep(check_listen(listen, development_key, &source));
        let names = policy::Names {
            models: &models,
            callers: &callers,
        };
        // Policies speak of models and callers: what is wrong there is not to be complained about twice.
        let policies = if mistakes.is_empty() {
            policy::check_all(policies, deployments, names, &source, &mut mistakes)
        } else {
            Vec::new()
        };
        mistakes.check()?;
        let (Some(listen), Some(trusted_proxies), Some(replay)) = (listen, proxies, replay) else {
            unreachable!("what is missing is a mistake");
        };
        let (Some(files), Some(batches)) = (files, batches) else {
            unreachable!("what is missing is a mistake");
        };
        Ok(Self {
            listen,
            listen_place,
            tls,
            connections: connections.unwrap_or(MOST_CONNECTIONS),
            telemetry,
            models,
            callers,
            development_key,
            policies,
            trusted_proxies,
            state_folder: state_folder.map(|folder| source.folder().join(folder)),
            files,
            batches,
            replay,
        })
    }

    /// The settings in which the new configuration differs and that can only be taken at the start.
    #[must_use]
    pub fn restart_needed_for(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            listen,
            models,
            trusted_proxies,
            state_folder,
            files,
            batches,
            replay,
            listen_place: _,
            tls,
            connections,
            telemetry,
            callers: _,
            development_key: _,
            policies: _,
        } = self;
        let but_for_prices = |models: &[ModelConfig]| -> Vec<ModelConfig> {
            let but_for_price = |model: &ModelConfig| ModelConfig {
                price: PriceSetup::default(),
                ..model.clone()
            };
            models.iter().map(but_for_price).collect()
        };
        let differ = [
            ("listen", *listen != new.listen),
            ("models", but_for_prices(models) != but_for_prices(&new.models)),
            ("trusted_proxies", *trusted_proxies != new.trusted_proxies),
            ("state_folder", *state_folder != new.state_folder),
            ("files", *files != new.files),
            ("batches", *batches != new.batches),
            ("replay", *replay != new.replay),
            ("tls", tls.is_some() != new.tls.is_some()),
            ("connections", *connections != new.connections),
            ("telemetry", *telemetry != new.telemetry),
        ];
        let names = differ.into_iter().filter(|(_, differs)| *differs);
        names.map(|(name, _)| name).collect()
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000);

fn check_listen(
    listen: Option<Spanned<String>>,
    development_key: bool,
    source: &Source<'_>,
) -> Result<SocketAddr, Mistake> {
    let Some(listen) = listen else {
        return Ok(DEFAULT_LISTEN);
    };
    let address = listen
        .get_ref()
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    let Some(address) = address else {
        let message = format!(
            "listen is '{}'; it must be an address and a port, such as 127.0.0.1:5000",
            listen.get_ref()
        );
        return Err(source.error(listen.span(), message));
    };
    if development_key && !address.ip().is_loopback() {
        let message = format!(
            "listen is '{address}', which others can reach, but no [callers.NAME] has a key of its own; the development \
             key '{DEVELOPMENT_KEY}' works on loopback addresses only"
        );
        return Err(source.error(listen.span(), message));
    }
    Ok(address)
}

fn check_proxies(
    networks: &[Spanned<String>],
    development_key: bool,
    source: &Source<'_>,
) -> Result<Vec<IpNet>, Mistake> {
    let checked = networks.iter().map(|network| check_network(network, source));
    let checked = checked.collect::<Result<_, _>>()?;
    if development_key && let Some(first) = networks.first() {
        let message = format!(
            "trusted_proxies has '{}', through which others can reach this server, but no [callers.NAME] has a key of its \
             own; the development key '{DEVELOPMENT_KEY}' is for this machine only",
            first.get_ref()
        );
        return Err(source.error(first.span(), message));
    }
    Ok(checked)
}

/// A network, or the one of a single address.
fn check_network(network: &Spanned<String>, source: &Source<'_>) -> Result<IpNet, Mistake> {
    let text = network.get_ref();
    let address = || text.parse().map(|address: IpAddr| address.into());
    text.parse().or_else(|_| address()).map_err(|_| {
        let message = format!(
            "trusted_proxies has '{text}'; it must be an address or a network, such as 127.0.0.1 or 10.0.0.0/8"
        );
        source.error(network.span(), message)
    })
}
