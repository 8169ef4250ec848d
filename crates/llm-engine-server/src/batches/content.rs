//! The rows of LLM Engine's batches, written as lines for the runner.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use llm_engine_wire::batch_completions::{Content, Version};
use llm_engine_wire::v1::{CompletionRequest, RequestError};
use llm_engine_wire::validation::{Body, Loc, Problem};
use serde_json::{Map, Value};

use super::record::Rows;
use crate::error_answer::ErrorAnswer;
use crate::request_body::{MAX_VALUES, values};

/// The rows that a file holds, in JSON as they would be in the request. Blocks.
pub(crate) fn read(path: &Path, version: Version) -> Result<Content, ErrorAnswer> {
    let wrong = |what: String| {
        let message = format!("input_data_path: the file does not hold the rows of a batch: {what}");
        ErrorAnswer::bad_request("invalid_input", message)
    };
    let bytes = std::fs::read(path).map_err(|error| ErrorAnswer::disk(&error))?;
    if values(&bytes) > MAX_VALUES {
        return Err(wrong(format!("it has more than {MAX_VALUES} JSON values")));
    }
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
    drop(bytes);
    Content::read(version, &value).map_err(|problems| wrong(in_words(&problems)))
}

/// The first of them, and where it is.
fn in_words(problems: &[Problem]) -> String {
    let Some(Problem { loc, msg, .. }) = problems.first() else {
        return "it can't be read".to_owned();
    };
    let steps = loc.iter().map(|step| match step {
        Loc::Name(name) => (*name).to_owned(),
        Loc::Index(index) => index.to_string(),
    });
    let place = steps.collect::<Vec<_>>().join(".");
    if place.is_empty() {
        msg.clone()
    } else {
        format!("{place}: {msg}")
    }
}

/// What prompts have in common is looked at before there is a batch: if it is wrong, it is for every row.
pub(crate) fn check(content: &Content, model: &str) -> Result<(), ErrorAnswer> {
    let Content::Prompts { fields, .. } = content else {
        return Ok(());
    };
    let first = with_prompt(fields, "");
    CompletionRequest::read(Some(model), &Body::Json(first.into())).map_err(|error| match error {
        RequestError::Invalid(problems) => {
            let in_content = problems.into_iter().map(|mut problem| {
                problem.loc.insert(1.min(problem.loc.len()), Loc::Name("content"));
                problem
            });
            ErrorAnswer::unprocessable(in_content.collect())
        }
        refused @ RequestError::Refused(_) => refused.into(),
    })?;
    Ok(())
}

fn with_prompt(fields: &Map<String, Value>, prompt: &str) -> Map<String, Value> {
    let mut fields = fields.clone();
    fields.insert("prompt".to_owned(), prompt.into());
    fields
}

impl Rows {
    pub(crate) fn of(content: &Content) -> Self {
        match content {
            Content::Prompts { .. } => Self::Prompts,
            Content::Requests(_) => Self::Requests,
        }
    }
}

/// How many rows there are.
pub(crate) fn count(content: &Content) -> usize {
    match content {
        Content::Prompts { prompts, .. } => prompts.len(),
        Content::Requests(requests) => requests.len(),
    }
}

/// Writes them, each for this model. Blocks until they are on the disk.
pub(crate) fn write(path: &Path, content: &Content, model: &str) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut line = |number: usize, mut fields: Map<String, Value>| {
        fields.insert("id".to_owned(), number.into());
        fields.insert("model".to_owned(), model.into());
        serde_json::to_writer(&mut file, &fields)?;
        file.write_all(b"\n")
    };
    match content {
        Content::Prompts { prompts, fields } => {
            for (number, prompt) in prompts.iter().enumerate() {
                line(number, with_prompt(fields, prompt))?;
            }
        }
        Content::Requests(requests) => {
            for (number, request) in requests.iter().enumerate() {
                line(number, request.clone())?;
            }
        }
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}
