//! Files on the server, as `/v1/files` answers: each answer has the fields of LLM Engine's own client and of OpenAI's, so that
//! both read it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file: OpenAI's object, and `size`, which LLM Engine's clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct File {
    /// Identifies it.
    pub id: String,
    /// Always `file`.
    pub object: &'static str,
    /// How long it is.
    pub bytes: u64,
    /// The same number.
    pub size: u64,
    /// Unix time, in seconds.
    pub created_at: i64,
    /// When it will be deleted: Unix time, in seconds.
    pub expires_at: i64,
    /// What it was called where it came from.
    pub filename: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Always `processed`: nothing is done to files.
    pub status: &'static str,
}

/// What a file is for. Nothing depends on it but lists that ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// OpenAI's assistants.
    Assistants,
    /// The rows of a batch.
    Batch,
    /// The answers of a batch.
    #[serde(rename = "batch_output")]
    BatchOutput,
    /// Examples to tune a model with.
    FineTune,
    /// Pictures.
    Vision,
    /// Anything; what LLM Engine's clients upload.
    #[serde(rename = "user_data")]
    UserData,
    /// Evaluations.
    Evals,
}

impl Purpose {
    /// Those that an uploaded file may have.
    pub const OF_UPLOADS: [Self; 6] = [
        Self::Assistants,
        Self::Batch,
        Self::FineTune,
        Self::Vision,
        Self::UserData,
        Self::Evals,
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::FineTune => "fine-tune",
            Self::Vision => "vision",
            Self::UserData => "user_data",
            Self::Evals => "evals",
        }
    }
}

/// A list of files: OpenAI's page, and all of its files once more as LLM Engine's clients read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileList {
    /// Always `list`.
    pub object: &'static str,
    /// The files.
    pub data: Vec<File>,
    /// The same files.
    pub files: Vec<NamedFile>,
    /// The id of the first.
    pub first_id: Option<String>,
    /// The id of the last: `after` it the list goes on.
    pub last_id: Option<String>,
    /// Whether it does.
    pub has_more: bool,
}

/// A file in a list of LLM Engine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NamedFile {
    /// Identifies it.
    pub id: String,
    /// What it was called where it came from.
    pub filename: String,
    /// How many bytes it has.
    pub size: u64,
}

/// What is answered when a file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileDeleted {
    /// Which it was.
    pub id: String,
    /// Always `file`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
}

/// What is in a file, for LLM Engine's clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileContent {
    /// Which it is.
    pub id: String,
    /// Its text; what is no UTF-8 is replaced.
    pub content: String,
}

impl FileList {
    /// A page of this list.
    #[must_use]
    pub fn new(data: Vec<File>, has_more: bool) -> Self {
        let named = |file: &File| NamedFile {
            id: file.id.clone(),
            filename: file.filename.clone(),
            size: file.size,
        };
        let id = |file: Option<&File>| file.map(|file| file.id.clone());
        Self {
            object: "list",
            files: data.iter().map(named).collect(),
            first_id: id(data.first()),
            last_id: id(data.last()),
            data,
            has_more,
        }
    }
}
