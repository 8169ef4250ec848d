use std::net::IpAddr;

use jiff::Timestamp;
use llm_engine_wire::batch_completions::{Job, JobStatus};
use llm_engine_wire::openai::{
    Batch, BatchError, BatchErrors, BatchStatus, COMPLETION_WINDOW, RequestCounts,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What is known of a batch, as it is on the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) owner: String,
    /// Where it was asked for: its rows come from there, as policies see it.
    pub(crate) address: IpAddr,
    pub(crate) asked: Asked,
    pub(crate) status: BatchStatus,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
    pub(crate) times: Times,
    /// What it will be once its outputs are written.
    pub(crate) ends_as: Option<BatchStatus>,
    pub(crate) counts: RequestCounts,
    /// Why it can't be run.
    pub(crate) errors: Vec<BatchError>,
    pub(crate) output_file_id: Option<String>,
    pub(crate) error_file_id: Option<String>,
}

/// What was asked for, and by which API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Asked {
    OpenAi {
        endpoint: String,
        input_file_id: String,
        metadata: Option<Map<String, Value>>,
        output_keep_seconds: Option<u64>,
    },
    LlmEngine {
        rows: Rows,
        input_data_path: Option<String>,
        output_data_path: String,
        model_config: Map<String, Value>,
        priority: Option<String>,
        labels: Map<String, Value>,
    },
}

/// What the rows of LLM Engine's batches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rows {
    /// Of version 1.
    Prompts,
    /// Of version 2.
    Requests,
}

/// When it came to each status; Unix time in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Times {
    in_progress: Option<i64>,
    finalizing: Option<i64>,
    completed: Option<i64>,
    failed: Option<i64>,
    expired: Option<i64>,
    cancelling: Option<i64>,
    cancelled: Option<i64>,
}

impl Record {
    /// Of one that was asked for now, with so many seconds.
    pub(crate) fn new(owner: &str, address: IpAddr, asked: Asked, now: Timestamp, seconds: u64) -> Self {
        let created_ms = now.as_millisecond();
        let milliseconds = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        Self {
            id: format!("batch_{}", Uuid::new_v4().simple()),
            owner: owner.to_owned(),
            address,
            asked,
            status: BatchStatus::Validating,
            created_ms,
            expires_ms: created_ms.saturating_add(milliseconds),
            times: Times::default(),
            ends_as: None,
            counts: RequestCounts::default(),
            errors: Vec::new(),
            output_file_id: None,
            error_file_id: None,
        }
    }

    /// It comes to this status.
    pub(crate) fn becomes(&mut self, status: BatchStatus, now: Timestamp) {
        self.status = status;
        let times = &mut self.times;
        let time = match status {
            BatchStatus::Validating => return,
            BatchStatus::InProgress => &mut times.in_progress,
            BatchStatus::Finalizing => &mut times.finalizing,
            BatchStatus::Completed => &mut times.completed,
            BatchStatus::Failed => &mut times.failed,
            BatchStatus::Expired => &mut times.expired,
            BatchStatus::Cancelling => &mut times.cancelling,
            BatchStatus::Cancelled => &mut times.cancelled,
        };
        *time = Some(now.as_second());
    }

    /// It can't be run.
    pub(crate) fn fails(&mut self, errors: Vec<BatchError>, now: Timestamp) {
        self.errors = errors;
        self.becomes(BatchStatus::Failed, now);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended_at().is_some()
    }

    /// When it had ended, in seconds.
    pub(crate) fn ended_at(&self) -> Option<i64> {
        let times = &self.times;
        match self.status {
            BatchStatus::Completed => times.completed,
            BatchStatus::Failed => times.failed,
            BatchStatus::Expired => times.expired,
            BatchStatus::Cancelled => times.cancelled,
            BatchStatus::Validating
            | BatchStatus::InProgress
            | BatchStatus::Finalizing
            | BatchStatus::Cancelling => None,
        }
    }

    /// Where its rows go, for the log.
    pub(crate) fn endpoint(&self) -> &str {
        match &self.asked {
            Asked::OpenAi { endpoint, .. } => endpoint,
            Asked::LlmEngine {
                rows: Rows::Prompts, ..
            } => "/v1/llm/completions-sync",
            Asked::LlmEngine {
                rows: Rows::Requests, ..
            } => "/v2",
        }
    }

    /// As OpenAI's clients see it, with so many rows done; `None` if it was asked for by another API.
    pub(crate) fn as_openai(&self, request_counts: RequestCounts) -> Option<Batch> {
        let Asked::OpenAi {
            endpoint,
            input_file_id,
            metadata,
            output_keep_seconds: _,
        } = &self.asked
        else {
            return None;
        };
        let times = self.times;
        // They are named before they are there.
        let when_ended = |id: &Option<String>| id.clone().filter(|_| self.has_ended());
        Some(Batch {
            id: self.id.clone(),
            object: "batch",
            endpoint: endpoint.clone(),
            errors: (!self.errors.is_empty()).then(|| BatchErrors {
                object: "list",
                data: self.errors.clone(),
            }),
            input_file_id: input_file_id.clone(),
            completion_window: COMPLETION_WINDOW,
            status: self.status,
            output_file_id: when_ended(&self.output_file_id),
            error_file_id: when_ended(&self.error_file_id),
            created_at: self.created_ms.div_euclid(1000),
            in_progress_at: times.in_progress,
            expires_at: self.expires_ms.div_euclid(1000),
            finalizing_at: times.finalizing,
            completed_at: times.completed,
            failed_at: times.failed,
            expired_at: times.expired,
            cancelling_at: times.cancelling,
            cancelled_at: times.cancelled,
            request_counts,
            metadata: metadata.clone(),
        })
    }

    /// As LLM Engine's clients see it, with so many rows done; `None` if it was asked for by another API.
    pub(crate) fn as_job(&self, counts: RequestCounts) -> Option<Job> {
        let Asked::LlmEngine {
            rows: _,
            input_data_path,
            output_data_path,
            model_config,
            priority,
            labels,
        } = &self.asked
        else {
            return None;
        };
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default().to_string();
        Some(Job {
            job_id: self.id.clone(),
            input_data_path: input_data_path.clone(),
            output_data_path: output_data_path.clone(),
            model_config: model_config.clone(),
            priority: priority.clone(),
            status: match self.status {
                BatchStatus::Validating => JobStatus::Queued,
                BatchStatus::InProgress | BatchStatus::Finalizing | BatchStatus::Cancelling => {
                    JobStatus::Running
                }
                BatchStatus::Completed => JobStatus::Completed,
                BatchStatus::Failed | BatchStatus::Expired => JobStatus::Failed,
                BatchStatus::Cancelled => JobStatus::Cancelled,
            },
            created_at: time(self.created_ms),
            expires_at: time(self.expires_ms),
            completed_at: self.ended_at().map(|seconds| time(seconds.saturating_mul(1000))),
            metadata: Some(self.metadata(labels, counts)),
        })
    }

    /// Clients read texts only.
    fn metadata(&self, labels: &Map<String, Value>, counts: RequestCounts) -> Map<String, Value> {
        let RequestCounts {
            total,
            completed,
            failed,
        } = counts;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut metadata: Map<String, Value> = labels
            .iter()
            .map(|(name, value)| (name.clone(), text(value).into()))
            .collect();
        for (name, count) in [("total", total), ("completed", completed), ("failed", failed)] {
            metadata.insert(name.to_owned(), count.to_string().into());
        }
        if let Some(id) = self.output_file_id.as_ref().filter(|_| self.has_ended()) {
            metadata.insert("output_file_id".to_owned(), id.as_str().into());
        }
        let why = match self.status {
            BatchStatus::Expired => Some("its time was over before every row had ended".to_owned()),
            _ => self.errors.first().map(|error| error.message.clone()),
        };
        metadata.extend(why.map(|why| ("error".to_owned(), why.into())));
        metadata
    }
}
