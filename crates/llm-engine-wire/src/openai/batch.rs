use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::InvalidRequest;

/// What `POST /v1/batches` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRequest {
    /// The file with the rows.
    pub input_file_id: String,
    /// Where every row goes, one of [`BATCH_ENDPOINTS`].
    pub endpoint: &'static str,
    /// Up to 16 names and texts of the caller's own.
    pub metadata: Option<Map<String, Value>>,
    /// For how long the outputs are kept, in seconds, if it says so.
    pub output_keep_seconds: Option<u64>,
}

/// Where the rows of a batch can go.
pub const BATCH_ENDPOINTS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// The only time that a batch can be given.
pub const COMPLETION_WINDOW: &str = "24h";

const MOST_METADATA: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 512;
/// An hour, and thirty days.
const OUTPUT_SECONDS: (u64, u64) = (3600, 2_592_000);

/// A batch.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Batch {
    /// Identifies it.
    pub id: String,
    /// Always `batch`.
    pub object: &'static str,
    /// Where its rows go.
    pub endpoint: String,
    /// Why it can't be run: mistakes in its input.
    pub errors: Option<BatchErrors>,
    /// The file with its rows.
    pub input_file_id: String,
    /// Always `24h`.
    pub completion_window: &'static str,
    /// How it stands.
    pub status: BatchStatus,
    /// The file with the answers, when it has ended and there are any.
    pub output_file_id: Option<String>,
    /// The file with the rows that have no answer, when it has ended and there are any.
    pub error_file_id: Option<String>,
    /// Unix time in seconds, as all that follow.
    pub created_at: i64,
    /// When its rows could be begun.
    pub in_progress_at: Option<i64>,
    /// When its time is over.
    pub expires_at: i64,
    /// When all rows had ended.
    pub finalizing_at: Option<i64>,
    /// When its outputs were there.
    pub completed_at: Option<i64>,
    /// When it was known that it can't be run.
    pub failed_at: Option<i64>,
    /// When its time was over, if it was.
    pub expired_at: Option<i64>,
    /// When it was cancelled.
    pub cancelling_at: Option<i64>,
    /// When what was on its way then had arrived.
    pub cancelled_at: Option<i64>,
    /// How many rows have ended.
    pub request_counts: RequestCounts,
    /// The caller's own names and texts.
    pub metadata: Option<Map<String, Value>>,
}

/// How a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Its input is read, or waits for that.
    Validating,
    /// Its input has mistakes, or its caller is not known any more.
    Failed,
    /// Its rows are answered.
    InProgress,
    /// Its outputs are written.
    Finalizing,
    /// Every row has ended.
    Completed,
    /// Its time was over before.
    Expired,
    /// It was cancelled, and rows on their way arrive.
    Cancelling,
    /// It was cancelled, and what was done until then is there.
    Cancelled,
}

/// The mistakes in a batch's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BatchErrors {
    /// Always `list`.
    pub object: &'static str,
    /// The first of them.
    pub data: Vec<BatchError>,
}

/// One mistake in a batch's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchError {
    /// A word for programs.
    pub code: String,
    /// The line of the input, from 1.
    pub line: Option<u64>,
    /// A sentence.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
}

/// How many rows have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestCounts {
    /// All rows.
    pub total: u64,
    /// Those with an answer.
    pub completed: u64,
    /// Those with an error.
    pub failed: u64,
}

/// A page of the list of batches.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BatchList {
    /// Always `list`.
    pub object: &'static str,
    /// The batches, the newest first.
    pub data: Vec<Batch>,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last: `after` it the list goes on.
    pub last_id: Option<String>,
    /// Whether it does.
    pub has_more: bool,
}

impl BatchList {
    /// A page of this list.
    #[must_use]
    pub fn new(data: Vec<Batch>, has_more: bool) -> Self {
        let id = |batch: Option<&Batch>| batch.map(|batch| batch.id.clone());
        Self {
            object: "list",
            first_id: id(data.first()),
            last_id: id(data.last()),
            data,
            has_more,
        }
    }
}

fn invalid(param: &'static str, message: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        message: message.into(),
        param: Some(param),
    }
}

impl BatchRequest {
    /// Reads and checks a request body.
    ///
    /// # Errors
    /// [`InvalidRequest`] names the first field that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|error| InvalidRequest {
            message: format!("the request body must be a JSON object: {error}"),
            param: None,
        })?;
        let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let text = |name: &'static str| match field(name) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => Err(invalid(name, format!("'{name}' must be a text"))),
            None => Err(invalid(name, format!("you must provide a '{name}' parameter"))),
        };
        let input_file_id = text("input_file_id")?.to_owned();
        let endpoint = text("endpoint")?;
        let known = BATCH_ENDPOINTS.into_iter().find(|known| *known == endpoint);
        let endpoint = known.ok_or_else(|| {
            let known = BATCH_ENDPOINTS.join(", ");
            invalid(
                "endpoint",
                format!("'endpoint' is '{endpoint}'; it must be one of {known}"),
            )
        })?;
        let window = text("completion_window")?;
        if window != COMPLETION_WINDOW {
            let message = format!("'completion_window' is '{window}'; it must be '{COMPLETION_WINDOW}'");
            return Err(invalid("completion_window", message));
        }
        Ok(Self {
            input_file_id,
            endpoint,
            metadata: field("metadata").map(metadata).transpose()?,
            output_keep_seconds: field("output_expires_after").map(output_seconds).transpose()?,
        })
    }

    /// The JSON schema of the body.
    #[must_use]
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["input_file_id", "endpoint", "completion_window"],
            "properties": {
                "input_file_id": { "type": "string" },
                "endpoint": { "enum": BATCH_ENDPOINTS },
                "completion_window": { "const": COMPLETION_WINDOW },
                "metadata": {
                    "type": ["object", "null"],
                    "maxProperties": MOST_METADATA,
                    "propertyNames": { "maxLength": LONGEST_NAME },
                    "additionalProperties": { "type": "string", "maxLength": LONGEST_TEXT },
                },
                "output_expires_after": {
                    "type": ["object", "null"],
                    "required": ["anchor", "seconds"],
                    "properties": {
                        "anchor": { "const": "created_at" },
                        "seconds": { "type": "integer", "minimum": OUTPUT_SECONDS.0, "maximum": OUTPUT_SECONDS.1 },
                    },
                },
            },
        })
    }
}

fn metadata(value: &Value) -> Result<Map<String, Value>, InvalidRequest> {
    let wrong = |message: String| Err(invalid("metadata", message));
    let Value::Object(pairs) = value else {
        return wrong("'metadata' must be an object".to_owned());
    };
    if pairs.len() > MOST_METADATA {
        let count = pairs.len();
        return wrong(format!(
            "'metadata' has {count} pairs; it may have up to {MOST_METADATA}"
        ));
    }
    for (name, value) in pairs {
        let is_text = |text: &str| text.chars().count() <= LONGEST_TEXT;
        if name.chars().count() > LONGEST_NAME || !value.as_str().is_some_and(is_text) {
            return wrong(format!(
                "'metadata' has names of up to {LONGEST_NAME} characters with texts of up to {LONGEST_TEXT}"
            ));
        }
    }
    Ok(pairs.clone())
}

fn output_seconds(value: &Value) -> Result<u64, InvalidRequest> {
    let (least, most) = OUTPUT_SECONDS;
    let is_anchored = value.get("anchor").and_then(Value::as_str) == Some("created_at");
    let seconds = value.get("seconds").and_then(whole);
    match seconds.filter(|seconds| is_anchored && (least..=most).contains(seconds)) {
        Some(seconds) => Ok(seconds),
        None => Err(invalid(
            "output_expires_after",
            format!("'output_expires_after' must have the anchor 'created_at' and {least} to {most} seconds"),
        )),
    }
}

/// A whole number, however it is written: `3600.0` is one to JSON Schema.
fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|float| float.fract() == 0.0);
    value.as_u64().or_else(|| float()?.to_string().parse().ok())
}
