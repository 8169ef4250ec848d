use std::path::PathBuf;

use llm_engine_server::config::Runner;

use super::{locate, read_config};

/// What `fetch-model` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration. Without it: llm-engine.toml here if there is one, else the built-in configuration.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Prints the path of each model file of the configuration, one a line.
#[expect(clippy::print_stdout, reason = "the paths are what the command is for")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for model in read_config(arguments.config.as_deref())?.models {
        if let Runner::Gguf(gguf) = &model.runner {
            println!("{}", locate(gguf)?.display());
        }
    }
    Ok(())
}
