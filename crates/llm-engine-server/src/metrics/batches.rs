use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What is counted of batches and files.
#[derive(Debug, Clone, Default)]
pub(crate) struct BatchMetrics {
    ended: Family<StatusLabels, Counter>,
    rows: Family<OutcomeLabels, Counter>,
    running: Gauge,
    unended: Gauge,
    files: Gauge,
    file_bytes: Gauge,
    /// How often something could not be written, and was tried again.
    pub(crate) disk_errors: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// A batch that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningBatch(Gauge);

impl BatchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "llm_engine_batches",
            "Batches that have ended, by how",
            self.ended.clone(),
        );
        registry.register(
            "llm_engine_batch_rows",
            "Rows of batches that have ended, by whether they have an answer or an error",
            self.rows.clone(),
        );
        registry.register(
            "llm_engine_batches_running",
            "Batches whose rows are answered now",
            self.running.clone(),
        );
        registry.register(
            "llm_engine_batches_unended",
            "Batches that have not ended, those that run among them",
            self.unended.clone(),
        );
        registry.register("llm_engine_files", "Files that are kept", self.files.clone());
        registry.register_with_unit(
            "llm_engine_files",
            "What they take",
            Unit::Bytes,
            self.file_bytes.clone(),
        );
        registry.register(
            "llm_engine_batch_disk_errors",
            "How often batches had to wait because the disk could not be used",
            self.disk_errors.clone(),
        );
    }

    pub(crate) fn ended(&self, status: &'static str) {
        self.ended.get_or_create(&StatusLabels { status }).inc();
    }

    pub(crate) fn rows_ended(&self, answered: u64, failed: u64) {
        for (outcome, count) in [("answered", answered), ("failed", failed)] {
            self.rows.get_or_create(&OutcomeLabels { outcome }).inc_by(count);
        }
    }

    pub(crate) fn running(&self) -> RunningBatch {
        self.running.inc();
        RunningBatch(self.running.clone())
    }

    /// How many there are now.
    pub(crate) fn now(&self, unended: usize, (files, bytes): (usize, u64)) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.unended.set(number(unended));
        self.files.set(number(files));
        self.file_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for RunningBatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}
