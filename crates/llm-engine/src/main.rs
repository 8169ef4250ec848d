//! The one executable. `main` reads the arguments and maps what a command says to an exit code; each command has a file
//! of its own under `commands/`.
//!
//! Exit codes: 0 done; 1 it did not work; 2 the arguments or the configuration are wrong, and nothing was started. Of `batch`
//! also 3: complete, with rows that have an error; and 4: incomplete, to be gone on with.

mod commands;
mod logging;
mod model_file;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

use commands::Usage;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// An LLM completion API that says no well.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, propagate_version = true)]
struct Arguments {
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t = logging::Format::Human)]
    log_format: logging::Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API.
    Serve(commands::serve::Arguments),
    /// Say whether a configuration is good, and what its policies mean.
    Check(commands::check::Arguments),
    /// Ask a server for a completion and print it as it comes.
    Complete(commands::complete::Arguments),
    /// Have many rows answered, each exactly once.
    #[command(subcommand)]
    Batch(commands::batch::Command),
    /// Say what every policy saw of a request.
    Explain(commands::explain::Arguments),
    /// Say what policies would have done to the requests of a log, or to made-up ones.
    Simulate(commands::simulate::Arguments),
    /// Run one model on a local socket; `serve` starts this for each model file.
    #[command(hide = true)]
    Worker(commands::worker::Arguments),
    /// Fetch the model file of a configuration and print its path.
    #[command(hide = true)]
    FetchModel(commands::fetch_model::Arguments),
}

const EXAMPLES: &str = "\
Examples:
  llm-engine serve                                   the built-in model on 127.0.0.1:5000, development key 'root'
  llm-engine serve --config llm-engine.toml          your models, callers and limits
  llm-engine check llm-engine.toml                   whether it is good, and what its policies mean
  llm-engine complete \"Why is the sky blue?\"         ask the local server
  llm-engine complete --model big --json \"Hello\"     the whole answer as JSON
  llm-engine batch run prompts.jsonl --out answers.jsonl
                                                     a row for each row, whatever happens
  llm-engine explain REQUEST_ID                      why a request was refused, or was not
  llm-engine simulate --log requests.jsonl           what these policies would have done to those requests

The log is set by LLM_ENGINE_LOG, for example LLM_ENGINE_LOG=debug.";

fn main() -> ExitCode {
    let Arguments { log_format, command } = Arguments::parse();
    let log = logging::start(log_format);
    let result = match command {
        Command::Serve(arguments) => commands::serve::run(&arguments, log_format, &log).map(done),
        Command::Check(arguments) => commands::check::run(&arguments).map(done),
        Command::Complete(arguments) => commands::complete::run(&arguments).map(done),
        Command::Batch(command) => commands::batch::run(&command),
        Command::Explain(arguments) => commands::explain::run(&arguments).map(done),
        Command::Simulate(arguments) => commands::simulate::run(&arguments).map(done),
        Command::Worker(arguments) => commands::worker::run(arguments).map(done),
        Command::FetchModel(arguments) => commands::fetch_model::run(&arguments).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}
