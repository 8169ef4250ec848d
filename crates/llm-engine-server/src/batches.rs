//! Batches: many rows, answered in the background at lower priority, in the name of who asked for them.
//!
//! - `storage.rs`: what is on the disk at the start
//! - `batch.rs`: one batch in memory
//! - `record.rs`: what is known of a batch, and as what the two APIs show it
//! - `validate.rs`, `content.rs`: the rows, as either API has them
//! - `run.rs`: a batch from wherever it stands to its end
//! - `sender.rs`: one row through the gateway
//! - `outputs.rs`: the files that it ends with
//!
//! The rows are run by `llm-engine-batch`, whose journal makes them survive anything that happens to the server. In the folder
//! a batch is three files: its record, written anew at each step; its rows, which are another name of the file that they came in; and
//! the journal. When it has ended only the record is left, for a while.

mod batch;
mod content;
mod outputs;
mod record;
mod run;
mod sender;
mod storage;
mod validate;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_gateway::Gateway;
use llm_engine_wire::openai::BatchStatus;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::disk;
use crate::files::Files;
use crate::metrics::BatchMetrics;

pub(crate) use batch::Batch;
pub(crate) use content::{
    check as check_content, count as count_rows, read as read_content, write as write_rows,
};
pub(crate) use record::{Asked, Record, Rows};
pub(crate) use run::link;
pub use storage::{Storage, StorageError};
pub(crate) use validate::failure;

/// How many batches there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchesSetup {
    /// The most rows of one.
    pub rows: u64,
    /// How many of one caller are known; those that ended first make room.
    pub per_caller: usize,
    /// How many of one caller run at the same time; others wait.
    pub running_per_caller: NonZeroUsize,
    /// How long one is known after its end.
    pub keep: Duration,
}

/// All batches, and the files that belong to them or not.
pub(crate) struct Batches {
    folder: PathBuf,
    pub(crate) files: Arc<Files>,
    pub(crate) setup: BatchesSetup,
    gateway: Arc<Gateway>,
    metrics: BatchMetrics,
    table: Mutex<HashMap<String, Arc<Batch>>>,
    /// For each caller, as many as may run.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Not that of a connection, whose thread has enough to do.
    runtime: Handle,
    _lock: File,
}

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error(
        "you have {0} batches that have not ended, which is the most; wait for some to end, or cancel them"
    )]
    TooMany(usize),
    #[error("the batch can't be kept: {0}")]
    Io(#[from] io::Error),
}

/// How often is looked for what is too old.
const SWEEP: Duration = Duration::from_secs(60);

impl Batches {
    /// Goes on with those that have not ended. Needs a tokio runtime, on which they run.
    pub(crate) fn start(storage: Storage, gateway: Arc<Gateway>, metrics: BatchMetrics) -> Arc<Self> {
        let Storage {
            folder,
            files,
            setup,
            mut records,
            lock,
        } = storage;
        let batches = Arc::new(Self {
            folder,
            files: Arc::new(files),
            setup,
            gateway,
            metrics,
            table: Mutex::default(),
            turns: Mutex::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            _lock: lock,
        });
        records.sort_by_key(|record| record.created_ms);
        for record in records {
            let batch = batches.add(record);
            if !batch.record().has_ended() {
                batches.begin(batch);
            }
        }
        batches.tasks.spawn(sweep(Arc::clone(&batches)));
        batches
    }

    /// From now on no row is begun; those on their way may arrive.
    pub(crate) fn drain(&self) {
        self.shutdown.cancel();
        self.tasks.close();
    }

    /// Returns when, after [`Self::drain`], all that is known of the batches is on the disk.
    pub(crate) async fn drained(&self) {
        self.tasks.wait().await;
    }

    /// The batch of this name, if it is the caller's.
    pub(crate) fn find(&self, owner: &str, id: &str) -> Option<Arc<Batch>> {
        self.table().get(id).filter(|batch| batch.owner == owner).cloned()
    }

    /// All of the caller's, the newest first.
    pub(crate) fn list(&self, owner: &str) -> Vec<Arc<Batch>> {
        let mut own: Vec<_> = self
            .table()
            .values()
            .filter(|batch| batch.owner == owner)
            .cloned()
            .collect();
        own.sort_by_cached_key(|batch| (batch.record().created_ms, batch.id.clone()));
        own.reverse();
        own
    }

    /// Keeps a batch whose rows are written by `write_rows`, which may block, and begins it. Once that has been asked for it happens,
    /// also if nobody waits for it any more.
    pub(crate) async fn create(
        self: &Arc<Self>,
        record: Record,
        write_rows: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<Arc<Batch>, CreateError> {
        self.make_room(&record.owner).await?;
        let batches = Arc::clone(self);
        let created = disk::blocking(move || -> io::Result<Arc<Batch>> {
            let (rows, path) = (batches.rows_path(&record.id), batches.record_path(&record.id));
            let written =
                write_rows(&rows).and_then(|()| disk::replace(&path, &serde_json::to_vec(&record)?));
            if written.is_err() {
                let _ = disk::remove(&rows);
            }
            written?;
            let batch = batches.add(record);
            batches.begin(Arc::clone(&batch));
            Ok(batch)
        });
        Ok(created.await?)
    }

    /// Has no other row begun. `false` if it had ended already.
    pub(crate) async fn cancel(&self, batch: &Arc<Batch>) -> io::Result<bool> {
        let cancel = |record: &mut Record, now| {
            // What is being finished is finished.
            if matches!(record.status, BatchStatus::Validating | BatchStatus::InProgress) {
                record.becomes(BatchStatus::Cancelling, now);
            }
        };
        self.change(batch, cancel).await?;
        Ok(!batch.record().has_ended())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.gateway.now()
    }

    /// Brings up to date what is looked at, for who wants to read the metrics now.
    pub(crate) fn look(&self) {
        let (files, bytes) = self.files.totals();
        let table = self.table();
        let unended = table.values().filter(|batch| !batch.record().has_ended()).count();
        drop(table);
        self.metrics.now(unended, (files, bytes));
    }

    fn add(&self, record: Record) -> Arc<Batch> {
        let batch = Arc::new(Batch::new(record, self.shutdown.child_token()));
        self.table().insert(batch.id.clone(), Arc::clone(&batch));
        batch
    }

    fn begin(self: &Arc<Self>, batch: Arc<Batch>) {
        self.tasks
            .spawn_on(run::run(Arc::clone(self), batch), &self.runtime);
    }

    /// Changes what is known of a batch, on the disk first; also if nobody waits for it any more.
    async fn change(
        &self,
        batch: &Arc<Batch>,
        change: impl FnOnce(&mut Record, Timestamp),
    ) -> io::Result<()> {
        let changing = Arc::clone(&batch.changing).lock_owned().await;
        let mut record = Record::clone(&batch.record());
        change(&mut record, self.now());
        if record == *batch.record() {
            return Ok(());
        }
        let (path, batch) = (self.record_path(&batch.id), Arc::clone(batch));
        let changed = disk::blocking(move || -> io::Result<()> {
            disk::replace(&path, &serde_json::to_vec(&record)?)?;
            batch.becomes(record);
            drop(changing);
            Ok(())
        });
        changed.await
    }

    /// For one more of the caller's, those that ended first are forgotten.
    async fn make_room(&self, owner: &str) -> Result<(), CreateError> {
        let mut own = self.list(owner);
        while own.len() >= self.setup.per_caller {
            let ended = own.iter().rposition(|batch| batch.record().has_ended());
            let ended = ended.ok_or(CreateError::TooMany(self.setup.per_caller))?;
            self.forget(&own.remove(ended)).await?;
        }
        Ok(())
    }

    async fn forget(&self, batch: &Batch) -> io::Result<()> {
        let path = self.record_path(&batch.id);
        disk::blocking(move || disk::remove(&path)).await?;
        self.table().remove(&batch.id);
        Ok(())
    }

    fn turns_of(&self, owner: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.setup.running_per_caller.get()));
        Arc::clone(turns.entry(owner.to_owned()).or_insert_with(new))
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn rows_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.rows"))
    }

    fn journal_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.journal"))
    }

    /// Every step leaves it consistent.
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Batch>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes what is too old, until the server ends.
async fn sweep(batches: Arc<Batches>) {
    let mut looks = interval(SWEEP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = batches.shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let (files, now) = (Arc::clone(&batches.files), batches.now());
        let swept = spawn_blocking(move || files.sweep(now)).await.unwrap_or(Ok(()));
        let last = now
            .as_second()
            .saturating_sub_unsigned(batches.setup.keep.as_secs());
        let mut result = swept;
        let known: Vec<_> = batches.table().values().cloned().collect();
        for batch in known {
            if batch.record().ended_at().is_some_and(|at| at <= last) {
                result = result.and(batches.forget(&batch).await);
            }
        }
        if let Err(error) = result {
            batches.metrics.disk_errors.inc();
            tracing::error!(%error, "files or batches that are too old can't be deleted");
        }
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
