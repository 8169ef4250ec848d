//! The input, row by row: in constant memory, whatever its length.

mod csv_rows;
mod ids;
mod json_lines;
mod survey;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::csv_rows::CsvRows;
use self::json_lines::JsonLines;
use crate::{BadRow, Row};

pub use self::survey::{Survey, SurveyError};

/// A file of rows.
#[derive(Debug, Clone)]
pub struct Input {
    path: PathBuf,
    format: Format,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line: OpenAI's batch lines, which have a `body`, or requests with an `id` beside their fields.
    Jsonl,
    /// Columns with a heading each: `id`, and the fields of the request.
    Csv,
}

impl Format {
    /// As the name of the file says: CSV if it ends so, else JSON lines.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::Jsonl,
        }
    }
}

/// Reads one row after the other. A row is only looked into when it is asked for, so going past those that are done is
/// cheap.
#[derive(Debug)]
pub struct Reader {
    rows: Rows,
    /// How many have been gone to.
    count: u64,
}

#[derive(Debug)]
enum Rows {
    Jsonl(JsonLines),
    Csv(Box<CsvRows>),
}

impl Input {
    /// The rows of this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            path: path.into(),
            format,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to read.
    ///
    /// # Errors
    /// If the file can't be opened, or has no heading where it must have one.
    pub fn read(&self) -> io::Result<Reader> {
        let file = File::open(&self.path)?;
        let rows = match self.format {
            Format::Jsonl => Rows::Jsonl(JsonLines::new(file)),
            Format::Csv => Rows::Csv(Box::new(CsvRows::new(file)?)),
        };
        Ok(Reader { rows, count: 0 })
    }
}

impl Reader {
    /// Goes to the next row, and says which it is; `None` at the end.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn advance(&mut self) -> io::Result<Option<u64>> {
        let is_there = match &mut self.rows {
            Rows::Jsonl(lines) => lines.advance()?,
            Rows::Csv(rows) => rows.advance()?,
        };
        if !is_there {
            return Ok(None);
        }
        self.count += 1;
        Ok(Some(self.count - 1))
    }

    /// The row that it went to last.
    ///
    /// # Errors
    /// [`BadRow`], if it is no request.
    pub fn row(&self) -> Result<Row, BadRow> {
        let number = self.count.saturating_sub(1);
        match &self.rows {
            Rows::Jsonl(lines) => lines.row(number),
            Rows::Csv(rows) => rows.row(number),
        }
    }
}

/// The id of a row that has none.
fn made_id(number: u64) -> Value {
    Value::String((number + 1).to_string())
}

/// An id as it may be: a text or a whole number. What is no id is none.
fn given_id(value: &Value) -> Option<Value> {
    (value.is_string() || value.is_u64() || value.is_i64()).then(|| value.clone())
}
