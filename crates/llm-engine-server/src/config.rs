//! The configuration: one TOML file, checked once, or the built-in defaults.
//!
//! Errors say where: file, line, and what was meant. Secrets come from the environment or from files, or are given as
//! digests; of each only the digest is kept.

mod caller;
mod certificate;
mod defaults;
mod error;
mod model;
mod nano_usd;
mod policy;
mod quota;
mod replay;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use llm_engine_gateway::{CallerSetup, PolicySetup, PriceSetup};
use serde::Deserialize;
use toml::Spanned;

use crate::connections::MOST_CONNECTIONS;
use crate::{ReplaySetup, TlsSetup};

pub use error::ConfigError;
pub use model::{GgufModel, ModelConfig, Runner};

use error::Source;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
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
    /// Where budgets and long debts are kept over a restart. `None`: the executable has a folder for it.
    pub state_folder: Option<PathBuf>,
    /// What is kept of answers to requests with an idempotency key.
    pub replay: ReplaySetup,
    /// By which the listener proves who it is.
    pub tls: Option<TlsSetup>,
    /// How many connections there may be.
    pub connections: NonZeroUsize,
}

/// The file as written. Every section is optional; without models there is the built-in one, without callers the
/// development key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    models: BTreeMap<Spanned<String>, model::RawModel>,
    #[serde(default)]
    callers: BTreeMap<Spanned<String>, caller::RawCaller>,
    #[serde(default)]
    policies: Vec<policy::RawPolicy>,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
    state_folder: Option<PathBuf>,
    #[serde(default)]
    replay: replay::RawReplay,
    tls: Option<Spanned<certificate::RawTls>>,
    connections: Option<NonZeroUsize>,
}

/// The key of the development caller: what the published client sends when nothing else is set.
pub const DEVELOPMENT_KEY: &str = "root";

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::whole_file(path, format!("it can't be read: {error}")))?;
        Self::parse(&text, path)
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
            replay,
            tls,
            connections,
        } = raw;

        let (mut models, deployments) = model::check_all(models, &source)?;
        if models.is_empty() {
            models = model::built_in()?;
        }
        let development_key = callers.is_empty();
        let callers = caller::check_all(callers, &source)?;
        let names = policy::Names {
            models: &models,
            callers: &callers,
        };
        let policies = policy::check_all(policies, deployments, names, &source)?;
        Ok(Self {
            listen: check_listen(listen, development_key, &source)?,
            trusted_proxies: check_proxies(&trusted_proxies, development_key, &source)?,
            state_folder: state_folder.map(|folder| source.folder().join(folder)),
            replay: replay::check(replay, &source)?,
            tls: tls.map(|tls| certificate::check(tls, &source)).transpose()?,
            connections: connections.unwrap_or(MOST_CONNECTIONS),
            models,
            callers,
            development_key,
            policies,
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
            replay,
            tls,
            connections,
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
            ("replay", *replay != new.replay),
            ("tls", tls.is_some() != new.tls.is_some()),
            ("connections", *connections != new.connections),
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
) -> Result<SocketAddr, ConfigError> {
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
) -> Result<Vec<IpNet>, ConfigError> {
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
fn check_network(network: &Spanned<String>, source: &Source<'_>) -> Result<IpNet, ConfigError> {
    let text = network.get_ref();
    let address = || text.parse().map(|address: IpAddr| address.into());
    text.parse().or_else(|_| address()).map_err(|_| {
        let message = format!(
            "trusted_proxies has '{text}'; it must be an address or a network, such as 127.0.0.1 or 10.0.0.0/8"
        );
        source.error(network.span(), message)
    })
}
