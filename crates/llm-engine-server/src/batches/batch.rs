use std::sync::{Arc, Mutex, PoisonError};

use llm_engine_batch::Usage;
use llm_engine_wire::openai::{BatchStatus, RequestCounts};
use tokio_util::sync::CancellationToken;

use super::record::Record;

/// A batch that is known.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(super) owner: String,
    record: Mutex<Arc<Record>>,
    /// One change after the other, with the disk between them.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// How far it has come while it runs.
    progress: Mutex<Progress>,
    /// No other row is begun: it was cancelled, or the server is shutting down.
    pub(super) stop: CancellationToken,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    counts: Option<RequestCounts>,
    usage: Usage,
}

impl Batch {
    pub(super) fn new(record: Record, stop: CancellationToken) -> Self {
        Self {
            id: record.id.clone(),
            owner: record.owner.clone(),
            record: Mutex::new(Arc::new(record)),
            changing: Arc::default(),
            progress: Mutex::default(),
            stop,
        }
    }

    /// What is known of it, after this has been written down.
    pub(super) fn becomes(&self, record: Record) {
        let is_cancelled = record.status == BatchStatus::Cancelling;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
        if is_cancelled {
            self.stop.cancel();
        }
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many rows have ended, as far as it is known now.
    pub(crate) fn counts(&self) -> RequestCounts {
        let record = self.record();
        if record.has_ended() {
            return record.counts;
        }
        self.progress_now().counts.unwrap_or(record.counts)
    }

    pub(super) fn usage(&self) -> Usage {
        self.progress_now().usage
    }

    pub(super) fn progress(&self, counts: RequestCounts) {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counts = Some(counts);
    }

    pub(super) fn used(&self, usage: Usage) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).usage = usage;
    }

    fn progress_now(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
