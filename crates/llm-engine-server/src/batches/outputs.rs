//! The files that a batch ends with, written from its journal in the order of its input.

use std::io::{self, Write};

use llm_engine_batch::{Form, Input, Journal, Outcome, RowError};
use serde_json::{Value, json};

use crate::files::NewFile;

/// How many rows were written to each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) answered: u64,
    pub(super) failed: u64,
}

/// OpenAI's lines: what was answered in one file, what was not in another. Rows that have not ended have this error. Blocks.
pub(super) fn write_lines(
    journal: &Journal,
    input: &Input,
    (answers, errors): (&mut NewFile, &mut NewFile),
    unended: &RowError,
) -> io::Result<Written> {
    let mut written = Written::default();
    each_row(journal, input, unended, |number, outcome| {
        if outcome.answer.is_some() {
            written.answered += 1;
            Form::OpenAi.write_row(answers, number, outcome)
        } else {
            written.failed += 1;
            Form::OpenAi.write_row(errors, number, outcome)
        }
    })?;
    Ok(written)
}

/// LLM Engine's list: for each row its answer, or, in the same place, its error. With prompts, an error stands beside an empty
/// text, so that the list can be read as one of completions. Blocks.
pub(super) fn write_list(
    journal: &Journal,
    input: &Input,
    output: &mut NewFile,
    (error_of, unended): (fn(&RowError) -> Value, &RowError),
) -> io::Result<Written> {
    let mut written = Written::default();
    output.write_all(b"[")?;
    each_row(journal, input, unended, |number, outcome| {
        output.write_all(if number == 0 { b"\n" } else { b",\n" })?;
        let answer = outcome
            .answer
            .as_ref()
            .and_then(|answer| answer.response.as_deref());
        match (answer, &outcome.error) {
            (Some(answer), _) => {
                written.answered += 1;
                output.write_all(answer.get().as_bytes())
            }
            (None, error) => {
                written.failed += 1;
                let error = error_of(error.as_ref().unwrap_or(unended));
                serde_json::to_writer(&mut *output, &error).map_err(io::Error::from)
            }
        }
    })?;
    output.write_all(b"\n]\n")?;
    Ok(written)
}

/// In a list of completions.
pub(super) fn error_of_prompt(error: &RowError) -> Value {
    json!({ "text": "", "num_prompt_tokens": null, "num_completion_tokens": 0, "tokens": null, "error": error })
}

/// In a list of answers of version 2.
pub(super) fn error_of_request(error: &RowError) -> Value {
    json!({ "error": error })
}

/// Every row of the input in its order, those that have not ended with this error.
fn each_row(
    journal: &Journal,
    input: &Input,
    unended: &RowError,
    mut each: impl FnMut(u64, &Outcome) -> io::Result<()>,
) -> io::Result<()> {
    let mut rows = input.read()?;
    let mut next = || -> io::Result<Option<(u64, Outcome)>> {
        let Some(number) = rows.advance()? else {
            return Ok(None);
        };
        let id = rows.row().map_or_else(|bad| bad.id, |row| row.id);
        Ok(Some((
            number,
            Outcome {
                id,
                answer: None,
                error: Some(unended.clone()),
                attempts: 0,
            },
        )))
    };
    journal.each_as_in_input(|number, outcome| {
        while let Some((other, unended)) = next()? {
            if other == number {
                break;
            }
            each(other, &unended)?;
        }
        each(number, outcome)
    })?;
    while let Some((number, unended)) = next()? {
        each(number, &unended)?;
    }
    Ok(())
}
