//! Many rows, each answered exactly once.

mod arguments;
mod estimate;
mod progress;
mod report;
mod schema;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use llm_engine_batch::{End, Input, Journal, RunError, Settings, Wish, journal_of};
use llm_engine_client::batch::Sender;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use self::arguments::{Arguments, Job};
use self::progress::Progress;
use self::report::Report;
use super::{Usage, server};

/// What can be done with a batch.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run it, or go on with it.
    Run(Box<Arguments>),
}

/// How long rows on their way may take to arrive after an interrupt. A second one ends it at once.
const GRACE: Duration = Duration::from_secs(10);

/// Runs a batch. The exit code says how it ended.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Run(arguments) = command;
    take_small_pages();
    let job = arguments.check()?;
    server::block_on(async {
        if arguments.dry_run {
            estimate::print(arguments, &job).await?;
            return Ok(ExitCode::SUCCESS);
        }
        run_job(arguments, &job).await
    })
}

/// Memory is taken from the system in pages of 4 KB, and not by the 2 MB: a batch needs little of it and waits most of the time, so
/// it would hold half as much again, and how much would be chance. A system that can't be told so is as good.
fn take_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

async fn run_job(arguments: &Arguments, job: &Job) -> anyhow::Result<ExitCode> {
    let out = arguments.out()?;
    let mut journal = open_journal(arguments, job, out)?;
    let settings = Settings {
        concurrency: arguments.concurrency.get(),
        senders: u32::try_from(job.senders).unwrap_or(u32::MAX),
        max_attempts: arguments.max_attempts.get(),
        patience: arguments.patience.into(),
        deadline: arguments
            .deadline
            .and_then(|deadline| Instant::now().checked_add(deadline.into())),
        most: job.most,
        sample: arguments.sample,
    };
    let began = Instant::now();
    let mut progress = Progress::new(&journal.tally(), arguments.sample);
    let end = if journal.is_complete() {
        Ok(End::Complete)
    } else {
        run_rows(&job.sender, &settings, &job.input, &mut journal, &mut progress).await
    };
    progress.finish();
    job.sender.cancelled().await;
    let mut report = Report::new(&journal, began.elapsed(), &job.sender, progress.last());
    match end {
        Ok(end) => report.ended(&end),
        Err(RunError::Journal(error)) => report.could_not(error.to_string()),
        Err(error @ RunError::Input(_)) => return Err(error.into()),
    }
    if journal.is_complete() && !(journal.is_written() && out.exists()) {
        if let Err(error) = journal.write_output(out, job.form, arguments.order()) {
            report.could_not(error.to_string());
        }
    } else if arguments.sample.is_some() {
        report::print_sample(&journal, job.form)?;
    }
    report.print(arguments.json, out)?;
    Ok(report.exit_code())
}

/// Runs until it ends, or is interrupted.
async fn run_rows(
    sender: &Sender,
    settings: &Settings,
    input: &Input,
    journal: &mut Journal,
    progress: &mut Progress,
) -> Result<End, RunError> {
    let (wish, wishes) = watch::channel(Wish::GoOn);
    let observe = |tally: &_| progress.show(tally, sender);
    let run = llm_engine_batch::run(sender, settings, input, journal, wishes, observe);
    tokio::select! {
        end = run => end,
        never = interrupts(&wish) => match never {},
    }
}

/// The first interrupt lets what is on its way arrive; the second, or some time, ends it.
async fn interrupts(wish: &watch::Sender<Wish>) -> std::convert::Infallible {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    eprintln!("interrupted: no other row is sent; those on their way have 10 s, or until the next interrupt");
    wish.send_replace(Wish::Finish);
    let _ = timeout(GRACE, next()).await;
    wish.send_replace(Wish::End);
    std::future::pending().await
}

/// The journal of the run that is gone on with, or of a new one.
fn open_journal(arguments: &Arguments, job: &Job, out: &Path) -> anyhow::Result<Journal> {
    let path = journal_of(out);
    if (arguments.resume || arguments.retry_failed) && !path.exists() {
        return Err(usage(format!(
            "there is no run to go on with: {} is not there",
            path.display()
        )));
    }
    let mut journal =
        llm_engine_batch::open(out, &job.input, job.form.settings(&job.defaults)).map_err(usage)?;
    if arguments.retry_failed {
        journal.reopen_failed()?;
    }
    Ok(journal)
}

fn usage(error: impl std::fmt::Display) -> anyhow::Error {
    Usage(error.to_string()).into()
}

/// What a file of JSON has.
fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| usage(format!("{}: {error}", path.display())))
}
