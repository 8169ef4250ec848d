//! The program, run to its end.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

#[cfg(feature = "worker")]
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::timeout;

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// The settings that a developer may have, and that would change what the program does.
pub(crate) const SETTINGS: &[&str] = &["LLM_ENGINE_BASE_PATH", "LLM_ENGINE_LOG", "SCALE_API_KEY"];

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the program with these arguments; what it gets on standard input has ended.
pub(crate) async fn run(arguments: &[&str]) -> Finished {
    finish(command(arguments).stdin(Stdio::null())).await
}

/// Runs the program in a folder.
pub(crate) async fn run_in(folder: &Path, arguments: &[&str]) -> Finished {
    finish(command(arguments).stdin(Stdio::null()).current_dir(folder)).await
}

/// Runs the program with a file for standard input.
#[cfg(feature = "worker")]
pub(crate) async fn run_reading(file: &Path, arguments: &[&str]) -> Finished {
    finish(command(arguments).stdin(std::fs::File::open(file).unwrap())).await
}

/// Starts the program, for who listens to it while it runs.
#[cfg(feature = "worker")]
pub(crate) fn started(arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

/// What it has come to.
#[cfg(feature = "worker")]
pub(crate) async fn ended(program: Child) -> Finished {
    finished(program.wait_with_output()).await
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-engine"));
    command.args(arguments);
    for name in SETTINGS {
        command.env_remove(name);
    }
    command
}

async fn finish(command: &mut Command) -> Finished {
    // Past its time it is dropped, which ends it.
    finished(command.kill_on_drop(true).output()).await
}

async fn finished(output: impl Future<Output = std::io::Result<Output>>) -> Finished {
    let finished = timeout(PATIENCE, output).await;
    let finished = finished.unwrap_or_else(|_| panic!("the program did not end in {PATIENCE:?}"));
    let finished = finished.unwrap();
    Finished {
        code: finished.status.code(),
        output: String::from_utf8(finished.stdout).unwrap(),
        errors: String::from_utf8(finished.stderr).unwrap(),
    }
}
