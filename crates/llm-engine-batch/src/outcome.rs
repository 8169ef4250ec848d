use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// What became of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The row's id.
    pub id: Value,
    /// The answer; none if there is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RowError>,
    /// How often it was sent, without those who were told to come later.
    pub attempts: u32,
}

/// A row's answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// What was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// All of the answer as it came, where that is what is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<RawValue>>,
    /// What the server calls the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What it took.
    pub usage: Usage,
    /// Whether the server had it already, from an attempt of which the answer did not arrive.
    #[serde(skip)]
    pub was_replayed: bool,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens that were generated.
    pub output_tokens: u64,
    /// What it cost, as far as prices are known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nano_usd: u64,
}

/// Why a row has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// One word, for programs.
    pub code: String,
    /// One sentence, for people.
    pub message: String,
    /// The status of the answer that said so, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A row that was sent and not answered.
#[derive(Debug, Clone)]
pub struct Failed {
    /// What went wrong.
    pub error: RowError,
    /// What follows from it.
    pub consequence: Consequence,
    /// Whether the server may have done the work all the same.
    pub may_be_done: bool,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The row would fail again: it is answered by its error.
    EndRow,
    /// It may go well another time.
    TryAgain,
    /// It was refused because there are too many, and nobody said for how long: it comes again, however often.
    ComeAgain,
    /// The answer under this name is lost: another one is to be generated, under another.
    TryAnew,
    /// No row will be answered: the run ends, and can be gone on with later.
    EndRun,
}

impl RowError {
    /// An error that no server said.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status: None,
        }
    }
}

impl Usage {
    pub(crate) fn add(&mut self, other: &Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.nano_usd += other.nano_usd;
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.input_tokens -= other.input_tokens;
        self.output_tokens -= other.output_tokens;
        self.nano_usd -= other.nano_usd;
    }

    /// Input and output together.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like that")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
