//! LLM Engine's own batches: `/v1/llm/batch-completions` and `/v2/batch-completions`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::validation::{
    Body, Bound, Field, Fields, Form, Loc, Problem, body_schema, dictionary, integer, string,
};

/// What is asked for, on either route.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchCompletionsRequest {
    /// The file with the rows.
    pub input_data_path: Option<String>,
    /// What the file with the answers shall be called.
    pub output_data_path: String,
    /// The rows, if they are not in a file.
    pub content: Option<Content>,
    /// The model that answers.
    pub model: String,
    /// All of `model_config`, of which nothing but the model matters here.
    pub model_config: Map<String, Value>,
    /// How long it may take, 1 s to two days.
    pub max_runtime_seconds: u64,
    /// Kept and shown.
    pub priority: Option<String>,
    /// Kept and shown.
    pub labels: Map<String, Value>,
    /// Whether a tool is wanted.
    pub wants_tool: bool,
}

/// Rows as they stand in a request, or in a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Prompts that have all else in common.
    Prompts {
        /// The prompts.
        prompts: Vec<String>,
        /// What they have in common: the other fields of a v1 completion.
        fields: Map<String, Value>,
    },
    /// Requests of version 2, completions or chats.
    Requests(Vec<Map<String, Value>>),
}

/// The versions of the API, which differ in what rows can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Prompts.
    V1,
    /// Prompts, or requests of version 2.
    V2,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Job {
    /// Identifies it.
    pub job_id: String,
    /// The file with the rows, if they are in one.
    pub input_data_path: Option<String>,
    /// What the file with the answers is called.
    pub output_data_path: String,
    /// The model, and what else was said of it.
    pub model_config: Map<String, Value>,
    /// As it was asked for.
    pub priority: Option<String>,
    /// How it stands.
    pub status: JobStatus,
    /// In RFC 3339's form, as those that follow.
    pub created_at: String,
    /// When its time is over.
    pub expires_at: String,
    /// When it ended.
    pub completed_at: Option<String>,
    /// Texts: the labels; `total`, `completed` and `failed` rows; `output_file_id`, when it is there; and why it failed, as
    /// `error`.
    pub metadata: Option<Map<String, Value>>,
}

/// How a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// It waits for others of its caller.
    Queued,
    /// Its rows are answered.
    Running,
    /// Every row has an answer or an error.
    Completed,
    /// It has no rows, its caller is not known any more, or its time was over.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// What version 1 answers when a batch was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CreatedJob {
    /// Identifies it.
    pub job_id: String,
}

/// What is answered when a batch is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FoundJob {
    /// The batch.
    pub job: Job,
}

/// What is answered when a batch is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CancelledJob {
    /// Whether it had not ended yet.
    pub success: bool,
}

const DAY_SECONDS: u64 = 24 * 60 * 60;
const FROM_1_TO_64: &[Bound] = &[Bound::AtLeast(1.0), Bound::AtMost(64.0)];
const UP_TO_TWO_DAYS: &[Bound] = &[Bound::AtLeast(1.0), Bound::AtMost(172_800.0)];
const FROM_0_TO_1: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(1.0)];

const INPUT: Field = Field::optional("input_data_path", Form::Text);
const OUTPUT: Field = Field::required("output_data_path", Form::Text);
const LABELS: Field = Field::optional("labels", Form::Dictionary);
const PARALLELISM: Field = Field::optional("data_parallelism", Form::Integer(FROM_1_TO_64));
const RUNTIME: Field = Field::optional("max_runtime_sec", Form::Integer(UP_TO_TWO_DAYS));
const PRIORITY: Field = Field::optional("priority", Form::Text);
const TOOL: Field = Field::optional("tool_config", Form::Dictionary);
const MODEL_CONFIG: Field = Field::required("model_config", Form::Dictionary);

/// In the order in which problems are listed. What else may be said is about machines, of which there are none to choose.
const FIELDS: [Field; 7] = [INPUT, OUTPUT, LABELS, PARALLELISM, RUNTIME, PRIORITY, TOOL];

/// What prompts have in common and must have.
const OF_PROMPTS: [Field; 3] = [
    Field::required("prompts", Form::Texts),
    Field::required("max_new_tokens", Form::Integer(&[])),
    Field::required("temperature", Form::Number(FROM_0_TO_1)),
];

impl BatchCompletionsRequest {
    /// Checks a body.
    ///
    /// # Errors
    /// Every problem that can be found at once.
    pub fn read(version: Version, body: &Body) -> Result<Self, Vec<Problem>> {
        let sent = body.fields().map_err(|problem| vec![*problem])?;
        let mut fields = Fields::new(sent);
        for field in FIELDS {
            let read = |value: &Value| field.form.read(value);
            if field.is_required {
                fields.required(field.name, read);
            } else {
                fields.optional(field.name, read);
            }
        }
        let content = fields.optional("content", |value| Content::read(version, value));
        let model = fields.required(MODEL_CONFIG.name, model);
        let problems = fields.into_problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let runtime = sent.get(RUNTIME.name).and_then(|value| integer(&[])(value).ok());
        let text = |field: Field| sent.get(field.name).and_then(Value::as_str).map(str::to_owned);
        let dictionary = |field: Field| sent.get(field.name).and_then(Value::as_object).cloned();
        Ok(Self {
            input_data_path: text(INPUT),
            output_data_path: text(OUTPUT).unwrap_or_default(),
            content,
            model: model.unwrap_or_default(),
            model_config: dictionary(MODEL_CONFIG).unwrap_or_default(),
            max_runtime_seconds: runtime
                .and_then(|it| u64::try_from(it).ok())
                .unwrap_or(DAY_SECONDS),
            priority: text(PRIORITY),
            labels: dictionary(LABELS).unwrap_or_default(),
            wants_tool: dictionary(TOOL).is_some(),
        })
    }

    /// The JSON schema of the body.
    #[must_use]
    pub fn schema(version: Version) -> Value {
        let mut schema = body_schema(FIELDS.into_iter().chain([MODEL_CONFIG]));
        schema["properties"]["content"] = Content::schema(version);
        schema["properties"][MODEL_CONFIG.name] = json!({
            "type": "object", "required": ["model"], "properties": { "model": { "type": "string" } },
        });
        schema
    }
}

impl Content {
    /// Rows as version 1 or 2 may have them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(version: Version, value: &Value) -> Result<Self, Vec<Problem>> {
        match value {
            Value::Array(requests) if version == Version::V2 => {
                let objects = requests.iter().enumerate().map(|(index, request)| match request {
                    Value::Object(fields) => Ok(fields.clone()),
                    other => Err(vec![no_object(vec![Loc::Index(index)], other)]),
                });
                objects.collect::<Result<_, _>>().map(Self::Requests)
            }
            Value::Object(fields) => Self::read_prompts(fields),
            other => Err(vec![no_object(Vec::new(), other)]),
        }
    }

    fn read_prompts(sent: &Map<String, Value>) -> Result<Self, Vec<Problem>> {
        let mut fields = Fields::new(sent);
        for field in OF_PROMPTS {
            fields.required(field.name, |value| field.form.read(value));
        }
        let mut problems = fields.into_problems();
        if !problems.is_empty() {
            // The place is said from the body on by whoever asks.
            for problem in &mut problems {
                problem.loc.remove(0);
            }
            return Err(problems);
        }
        let mut fields = sent.clone();
        let prompts = match fields.shift_remove("prompts") {
            Some(Value::Array(prompts)) => prompts,
            _ => Vec::new(),
        };
        let texts = prompts.into_iter().filter_map(|prompt| match prompt {
            Value::String(prompt) => Some(prompt),
            _ => None,
        });
        Ok(Self::Prompts {
            prompts: texts.collect(),
            fields,
        })
    }

    fn schema(version: Version) -> Value {
        let prompts = body_schema(OF_PROMPTS.into_iter());
        let requests = json!({ "type": "array", "items": { "type": "object" } });
        let nothing = json!({ "type": "null" });
        match version {
            Version::V1 => json!({ "anyOf": [prompts, nothing] }),
            Version::V2 => json!({ "anyOf": [prompts, requests, nothing] }),
        }
    }
}

fn model(config: &Value) -> Result<String, Vec<Problem>> {
    let config = dictionary(config)?;
    match config.get("model") {
        None => Err(vec![Problem::missing(vec![Loc::Name("model")], config.into())]),
        Some(model) => string(model).map_err(|mut problems| {
            problems
                .iter_mut()
                .for_each(|problem| problem.loc.insert(0, Loc::Name("model")));
            problems
        }),
    }
}

fn no_object(loc: Vec<Loc>, input: &Value) -> Problem {
    Problem {
        kind: "model_attributes_type",
        loc,
        msg: "Input should be a valid dictionary or object to extract fields from".to_owned(),
        input: input.clone(),
        ctx: None,
    }
}
