//! One file per command.

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod complete;
pub(crate) mod explain;
pub(crate) mod fetch_model;
pub(crate) mod serve;
mod server;
pub(crate) mod simulate;
mod summary;
pub(crate) mod worker;

use std::path::{Path, PathBuf};

use llm_engine_server::config::{Config, GgufModel};

use crate::model_file::{ModelCache, ModelFile};

/// The arguments or the configuration are wrong; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The file that is read if none is named and it is there.
const CONFIG_FILE: &str = "llm-engine.toml";

/// The configuration of this file, of `llm-engine.toml` in the working folder, or the built-in one.
fn read_config(path: Option<&Path>) -> anyhow::Result<Config> {
    let config = match config_file(path) {
        Some(path) => Config::read(path),
        None => Config::built_in(),
    };
    config.map_err(|error| Usage(error.to_string()).into())
}

/// The file that [`read_config`] reads, if it reads any.
fn config_file(named: Option<&Path>) -> Option<&Path> {
    let here = Path::new(CONFIG_FILE);
    named.or_else(|| here.exists().then_some(here))
}

/// The checked file of a model, downloaded first if it has to be.
fn locate(gguf: &GgufModel) -> anyhow::Result<PathBuf> {
    let file = ModelFile {
        source: &gguf.source,
        sha256: gguf.sha256.as_deref(),
        base: &gguf.base,
    };
    let cache = ModelCache::of_user(|name| std::env::var_os(name));
    file.locate(&cache)
        .map_err(|error| Usage(format!("{}: {error}", gguf.place)).into())
}
