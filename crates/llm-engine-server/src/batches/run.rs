//! One batch from wherever it stands to its end. Every step is written down before the next, so that after a crash it goes on from
//! there; what the disk does not take is tried again until it does.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_batch::{
    End, Format, Input, Journal, JournalError, RowError, RunError, Settings, SurveyError, Tally, Wish,
};
use llm_engine_wire::file::Purpose;
use llm_engine_wire::openai::{BatchStatus, RequestCounts};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::outputs::{error_of_prompt, error_of_request, write_lines, write_list};
use super::record::{Asked, Rows};
use super::sender::Sender;
use super::validate::{failure, validate};
use super::{Batch, Batches};
use crate::disk;
use crate::files::{Description, new_id};

/// So many rows of a batch wait for their turn, or are on their way.
const ROWS_AT_ONCE: usize = 256;
/// When the disk is tried again.
const AFTER_DISK_ERROR: Duration = Duration::from_secs(10);

/// Why a batch can't go on for the moment.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error("a step ended early: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Runs it, when it is its turn.
pub(super) async fn run(batches: Arc<Batches>, batch: Arc<Batch>) {
    let turns = batches.turns_of(&batch.owner);
    let _turn = tokio::select! {
        turn = turns.acquire_owned() => turn.ok(),
        // One that is cancelled needs none to end.
        () = batch.stop.cancelled() => None,
    };
    let _running = batches.metrics.running();
    while let Err(error) = go_on(&batches, &batch).await {
        batches.metrics.disk_errors.inc();
        tracing::error!(batch = batch.id, %error, "the batch waits until the disk can be used again");
        tokio::select! {
            () = batches.shutdown.cancelled() => return,
            () = sleep(AFTER_DISK_ERROR) => {}
        }
    }
}

/// All steps that are left. At a shutdown it ends between two.
async fn go_on(batches: &Arc<Batches>, batch: &Arc<Batch>) -> Result<(), StepError> {
    loop {
        if batches.shutdown.is_cancelled() {
            return Ok(());
        }
        match batch.record().status {
            BatchStatus::Validating => look_at_input(batches, batch).await?,
            BatchStatus::InProgress => answer_rows(batches, batch).await?,
            BatchStatus::Finalizing | BatchStatus::Cancelling => write_outputs(batches, batch).await?,
            BatchStatus::Completed | BatchStatus::Failed | BatchStatus::Expired | BatchStatus::Cancelled => {
                clean_up(batches, batch).await?;
                report(batches, batch);
                return Ok(());
            }
        }
    }
}

/// Whether its rows can be sent at all.
async fn look_at_input(batches: &Arc<Batches>, batch: &Arc<Batch>) -> Result<(), StepError> {
    let (path, most) = (batches.rows_path(&batch.id), batches.setup.rows);
    let asked = batch.record().asked.clone();
    let rows = match asked {
        Asked::OpenAi { endpoint, .. } => spawn_blocking(move || validate(&path, &endpoint, most)).await??,
        // They were written here.
        Asked::LlmEngine { .. } => Ok(batch.record().counts.total),
    };
    let change = batches.change(batch, |record, now| match rows {
        _ if record.status != BatchStatus::Validating => {}
        Ok(total) => {
            record.counts.total = total;
            record.becomes(BatchStatus::InProgress, now);
        }
        Err(errors) => record.fails(errors, now),
    });
    Ok(change.await?)
}

/// Has the rows answered, until the last or until its time is over.
async fn answer_rows(batches: &Arc<Batches>, batch: &Arc<Batch>) -> Result<(), StepError> {
    let input = Input::new(batches.rows_path(&batch.id), Format::Jsonl);
    let mut journal = journal(batches, batch, &input).await?;
    let record = batch.record();
    let stop = CancellationToken::new();
    let sender = Sender::new(&batches.gateway, &record, stop.clone());
    let left = record
        .expires_ms
        .saturating_sub(batches.gateway.now().as_millisecond());
    let settings = Settings {
        concurrency: ROWS_AT_ONCE,
        patience: Duration::MAX,
        deadline: Instant::now().checked_add(Duration::from_millis(left.try_into().unwrap_or(0))),
        ..Settings::default()
    };
    let (wish, wishes) = watch::channel(Wish::GoOn);
    let mut before = journal.tally();
    batch.progress(counts(&before));
    let observe = |tally: &Tally| {
        let (now, then) = (counts(tally), counts(&before));
        let metrics = &batches.metrics;
        metrics.rows_ended(now.completed - then.completed, now.failed - then.failed);
        batch.progress(now);
        before = tally.clone();
    };
    let end = {
        let running = llm_engine_batch::run(&sender, &settings, &input, &mut journal, wishes, observe);
        let mut running = std::pin::pin!(running);
        tokio::select! {
            end = &mut running => end?,
            () = batch.stop.cancelled() => {
                // What is on its way may arrive: it has cost something already. The run is told before its rows, or it
                // would send those again that give up.
                let _ = wish.send(Wish::Finish);
                stop.cancel();
                running.await?
            }
        }
    };
    batch.used(journal.tally().usage);
    drop(journal);
    let ends_as = match &end {
        End::Complete => BatchStatus::Completed,
        End::Deadline => BatchStatus::Expired,
        // By a cancel, which has said so, or at a shutdown, after which it goes on.
        End::Stopped => return Ok(()),
        End::MostReached | End::Outage(_) | End::Hopeless(_) => BatchStatus::Failed,
    };
    let change = batches.change(batch, |record, now| {
        if record.status == BatchStatus::InProgress {
            record.ends_as = Some(ends_as);
            if ends_as == BatchStatus::Failed {
                record.errors = vec![failure(end.word(), &end.to_string())];
            }
            record.becomes(BatchStatus::Finalizing, now);
        }
    });
    Ok(change.await?)
}

fn counts(tally: &Tally) -> RequestCounts {
    RequestCounts {
        total: tally.rows,
        completed: tally.ended - tally.failed,
        failed: tally.failed,
    }
}

/// The journal of its rows: the one that there is, or a new one.
async fn journal(batches: &Batches, batch: &Batch, input: &Input) -> Result<Journal, StepError> {
    let (path, input) = (batches.journal_path(&batch.id), input.clone());
    let opened = spawn_blocking(move || -> Result<Journal, StepError> {
        if let Some(journal) = Journal::resume(&path)? {
            return Ok(journal);
        }
        let survey = input.survey()?;
        Ok(Journal::begin(&path, survey, serde_json::Value::Null)?)
    });
    opened.await?
}

/// Writes its outputs, under names that are written down before, so that none is there twice after a crash.
async fn write_outputs(batches: &Arc<Batches>, batch: &Arc<Batch>) -> Result<(), StepError> {
    let change = batches.change(batch, |record, _| {
        record.ends_as.get_or_insert(BatchStatus::Cancelled);
        record.output_file_id.get_or_insert_with(new_id);
        record.error_file_id.get_or_insert_with(new_id);
    });
    change.await?;
    let ended = {
        let (batches, batch) = (Arc::clone(batches), Arc::clone(batch));
        let now = batches.now();
        spawn_blocking(move || outputs(&batches, &batch, now)).await??
    };
    let change = batches.change(batch, |record, now| {
        record.counts = ended;
        let is_list = matches!(record.asked, Asked::LlmEngine { .. });
        let has_errors = ended.failed > 0;
        if ended.completed == 0 && !(is_list && has_errors) {
            record.output_file_id = None;
        }
        if is_list || !has_errors {
            record.error_file_id = None;
        }
        record.becomes(record.ends_as.unwrap_or(BatchStatus::Completed), now);
    });
    Ok(change.await?)
}

/// Blocks.
fn outputs(batches: &Batches, batch: &Batch, now: Timestamp) -> Result<RequestCounts, StepError> {
    let record = batch.record();
    let total = record.counts.total;
    // One that was cancelled before it began.
    let Some(journal) = Journal::resume(&batches.journal_path(&batch.id))? else {
        return Ok(RequestCounts {
            total,
            ..RequestCounts::default()
        });
    };
    batch.used(journal.tally().usage);
    let input = Input::new(batches.rows_path(&batch.id), Format::Jsonl);
    let unended = match record.ends_as {
        Some(BatchStatus::Cancelled) => RowError::new(
            "batch_cancelled",
            "the batch was cancelled before this row was answered",
        ),
        Some(BatchStatus::Expired) => RowError::new(
            "batch_expired",
            "the batch's time was over before this row was answered",
        ),
        _ => RowError::new("batch_failed", "the batch failed before this row was answered"),
    };
    let create = |id: &Option<String>| {
        batches
            .files
            .create(&batch.owner, id.clone().unwrap_or_else(new_id))
    };
    let mut answers = create(&record.output_file_id)?;
    let description = |filename: String, keep: Option<u64>| Description {
        filename,
        purpose: Purpose::BatchOutput,
        keep: keep.map(Duration::from_secs),
        now,
    };
    let written = match &record.asked {
        Asked::OpenAi {
            output_keep_seconds: keep,
            ..
        } => {
            let mut errors = create(&record.error_file_id)?;
            let written = write_lines(&journal, &input, (&mut answers, &mut errors), &unended)?;
            if written.answered > 0 {
                batches
                    .files
                    .keep(answers, description(format!("{}_output.jsonl", batch.id), *keep))?;
            }
            if written.failed > 0 {
                batches
                    .files
                    .keep(errors, description(format!("{}_error.jsonl", batch.id), *keep))?;
            }
            written
        }
        Asked::LlmEngine {
            rows,
            output_data_path,
            ..
        } => {
            let error_of = match rows {
                Rows::Prompts => error_of_prompt,
                Rows::Requests => error_of_request,
            };
            let written = write_list(&journal, &input, &mut answers, (error_of, &unended))?;
            batches
                .files
                .keep(answers, description(output_data_path.clone(), None))?;
            written
        }
    };
    Ok(RequestCounts {
        total,
        completed: written.answered,
        failed: written.failed,
    })
}

/// What only running it needed.
async fn clean_up(batches: &Batches, batch: &Batch) -> io::Result<()> {
    let (rows, journal) = (batches.rows_path(&batch.id), batches.journal_path(&batch.id));
    let removed = spawn_blocking(move || disk::remove(&journal).and_then(|()| disk::remove(&rows)));
    removed.await.unwrap_or(Ok(()))
}

/// One record, when it has ended.
fn report(batches: &Batches, batch: &Batch) {
    let record = batch.record();
    let status = word(record.status);
    let usage = batch.usage();
    batches.metrics.ended(status);
    tracing::info!(
        target: "llm_engine::batch",
        batch = record.id,
        caller = record.owner,
        endpoint = record.endpoint(),
        status,
        rows = record.counts.total,
        answered = record.counts.completed,
        failed = record.counts.failed,
        input_tokens = usage.input_tokens,
        output_tokens = usage.output_tokens,
        duration_ms = batches.gateway.now().as_millisecond() - record.created_ms,
        "batch"
    );
}

fn word(status: BatchStatus) -> &'static str {
    match status {
        BatchStatus::Completed => "completed",
        BatchStatus::Expired => "expired",
        BatchStatus::Cancelled => "cancelled",
        _ => "failed",
    }
}

/// Gives the rows of a batch their own name, under which they stay when the file is deleted. Blocks.
pub(crate) fn link(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    // Not every file system has links.
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}
