mod json;
mod lines;

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

pub(crate) use lines::Lines;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For machines: one JSON object a line.
    Json,
}

impl Format {
    /// The word for the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// The environment variable that says what is logged.
const VARIABLE: &str = "LLM_ENGINE_LOG";

const USUAL: &str = "info";

/// llama.cpp tells a lot about every model that it loads; who wants to hear it says so behind this.
const QUIET: &str = "llama-cpp-2=warn";

/// Logs go to standard error; standard output is for what a command prints. Each line is written at once as long as they are not
/// [gathered](Lines::gather).
pub(crate) fn start(format: Format) -> Lines {
    let asked = std::env::var(VARIABLE).unwrap_or_else(|_| USUAL.to_owned());
    let filter = EnvFilter::new(format!("{QUIET},{asked}"));
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone());
    match format {
        Format::Human => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => log.event_format(json::Json).init(),
    }
    lines
}
