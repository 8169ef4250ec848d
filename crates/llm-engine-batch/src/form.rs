use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::{Format, Input, Outcome, RowError};

/// How the rows of an output are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A JSON object a line: `id`, and either `text`, `finish_reason` and the tokens, or `error`.
    Jsonl,
    /// The lines of OpenAI's output and error files.
    OpenAi,
    /// Columns: id, text, finish reason, tokens, and the error.
    Csv,
}

const COLUMNS: [&str; 7] = [
    "id",
    "text",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "error_code",
    "error",
];

#[derive(Serialize)]
struct Simple<'a> {
    id: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RowError>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    id: String,
    custom_id: &'a Value,
    response: Option<OpenAiResponse<'a>>,
    error: Option<Value>,
}

#[derive(Serialize)]
struct OpenAiResponse<'a> {
    status_code: u16,
    request_id: &'a str,
    body: &'a RawValue,
}

impl Form {
    /// As the name of the output says: CSV if it ends so, else JSON lines, which are OpenAI's if those of the input are.
    ///
    /// # Errors
    /// If the input can't be read.
    pub fn of(output: &Path, input: &Input) -> io::Result<Self> {
        if Format::of(output) == Format::Csv {
            return Ok(Self::Csv);
        }
        let mut rows = input.read()?;
        let is_of_openai = rows.advance()?.is_some() && rows.row().is_ok_and(|row| row.target.is_some());
        Ok(if is_of_openai { Self::OpenAi } else { Self::Jsonl })
    }

    /// What must not change while a run is gone on with, for [`open`](crate::open): this, and what rows have by default.
    #[must_use]
    pub fn settings(self, defaults: &Map<String, Value>) -> Value {
        let mut settings = defaults.clone();
        settings.insert("form".to_owned(), json!(self));
        Value::Object(settings)
    }

    pub(crate) fn write_heading(self, output: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Csv => write_cells(output, &COLUMNS),
            Self::Jsonl | Self::OpenAi => Ok(()),
        }
    }

    /// Writes what became of the row of this number.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_row(self, output: &mut impl Write, number: u64, outcome: &Outcome) -> io::Result<()> {
        match self {
            Self::Jsonl => write_line(output, &simple(outcome)),
            Self::OpenAi => write_openai(output, number, outcome),
            Self::Csv => write_csv(output, outcome),
        }
    }
}

fn simple(outcome: &Outcome) -> Simple<'_> {
    let answer = outcome.answer.as_ref();
    Simple {
        id: &outcome.id,
        text: answer.and_then(|answer| answer.text.as_deref()),
        finish_reason: answer.and_then(|answer| answer.finish_reason.as_deref()),
        input_tokens: answer.map(|answer| answer.usage.input_tokens),
        output_tokens: answer.map(|answer| answer.usage.output_tokens),
        response: answer.and_then(|answer| answer.response.as_deref()),
        error: outcome.error.as_ref(),
    }
}

/// An answer that was an error has its status and body as its response; what no server said is an error.
fn write_openai(output: &mut impl Write, number: u64, outcome: &Outcome) -> io::Result<()> {
    let answer = outcome.answer.as_ref();
    let said = outcome.error.as_ref().filter(|error| error.status.is_some());
    let body = match said {
        None => None,
        Some(error) => Some(serde_json::value::to_raw_value(&json!({ "error": {
            "code": error.code, "message": error.message, "type": null, "param": null,
        }}))?),
    };
    let answered = answer.and_then(|answer| {
        Some(OpenAiResponse {
            status_code: 200,
            request_id: answer.request_id.as_deref().unwrap_or_default(),
            body: answer.response.as_deref()?,
        })
    });
    let refused = || {
        Some(OpenAiResponse {
            status_code: said?.status?,
            request_id: "",
            body: body.as_deref()?,
        })
    };
    let unsaid = outcome.error.as_ref().filter(|error| error.status.is_none());
    let line = OpenAi {
        id: format!("batch_req_{number}"),
        custom_id: &outcome.id,
        response: answered.or_else(refused),
        error: unsaid.map(|error| json!({ "code": error.code, "message": error.message })),
    };
    write_line(output, &line)
}

fn write_csv(output: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let answer = outcome.answer.as_ref();
    let error = outcome.error.as_ref();
    let id = match &outcome.id {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    };
    let tokens = |tokens: Option<u64>| tokens.map_or(String::new(), |tokens| tokens.to_string());
    let cells = [
        id.as_str(),
        answer
            .and_then(|answer| answer.text.as_deref())
            .unwrap_or_default(),
        answer
            .and_then(|answer| answer.finish_reason.as_deref())
            .unwrap_or_default(),
        &tokens(answer.map(|answer| answer.usage.input_tokens)),
        &tokens(answer.map(|answer| answer.usage.output_tokens)),
        error.map_or("", |error| error.code.as_str()),
        error.map_or("", |error| error.message.as_str()),
    ];
    write_cells(output, &cells)
}

fn write_cells(output: &mut impl Write, cells: &[&str]) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new()
        .buffer_capacity(1024)
        .from_writer(output);
    writer.write_record(cells)?;
    writer.flush()
}

fn write_line(output: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}
