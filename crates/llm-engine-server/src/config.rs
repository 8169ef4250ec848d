//! The configuration: one TOML file, checked once, or the built-in defaults.
//!
//! Errors say where: file, line, and what was meant. Secrets come from the environment or from files, or are given as
//! digests; of each only the digest is kept.

mod caller;
mod defaults;
mod error;
mod model;
mod policy;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use llm_engine_gateway::{CallerSetup, Policy};
use serde::Deserialize;
use toml::Spanned;

pub use error::ConfigError;
pub use model::{GgufModel, ModelConfig, Runner};

use error::Source;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The models.
    pub models: Vec<ModelConfig>,
    /// The callers.
    pub callers: Vec<CallerSetup>,
    /// Whether the only caller is the development key `root`, because the configuration names none.
    pub development_key: bool,
    /// The limits.
    pub policies: Vec<Policy>,
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
        } = raw;

        let mut models = model::check_all(models, &source)?;
        if models.is_empty() {
            models = model::built_in()?;
        }
        let development_key = callers.is_empty();
        let (callers, teams) = caller::check_all(callers, &source)?;
        let policies = policy::check_all(
            policies,
            &policy::Names {
                models: &models,
                callers: &callers,
                teams: &teams,
            },
            &source,
        )?;
        let listen = check_listen(listen, development_key, &source)?;
        Ok(Self {
            listen,
            models,
            callers,
            development_key,
            policies,
        })
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000);

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
