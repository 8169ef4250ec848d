use std::fs::File;
use std::io;

use csv::StringRecord;
use serde_json::{Map, Value};

use super::made_id;
use crate::{BadRow, Row};

/// Rows of columns. A cell is a text in the columns `id`, `prompt` and `model`; in all others it is JSON if it can be, as in
/// `0.2`, `true` or `["\n"]`. An empty cell is a field that is not there.
#[derive(Debug)]
pub(super) struct CsvRows {
    file: csv::Reader<File>,
    heading: StringRecord,
    record: StringRecord,
    /// What is wrong with the current one, if it can't be read.
    wrong: Option<String>,
    line: u64,
}

const TEXTS: [&str; 3] = ["id", "prompt", "model"];

impl CsvRows {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let mut file = csv::ReaderBuilder::new()
            .flexible(true)
            .buffer_capacity(256 << 10)
            .from_reader(file);
        let heading = file.headers().map_err(io::Error::from)?;
        let mut names: Vec<String> = heading.iter().map(|name| name.trim().to_owned()).collect();
        if let Some(first) = names.first_mut() {
            *first = first.trim_start_matches('\u{feff}').to_owned();
        }
        if !names.iter().any(|name| name == "prompt" || name == "messages") {
            let what = "the first line must name the columns, and one of them be `prompt` or `messages`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self {
            file,
            heading: names.into(),
            record: StringRecord::new(),
            wrong: None,
            line: 1,
        })
    }

    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let read = self.file.read_record(&mut self.record);
        self.line = self.record.position().map_or(self.line + 1, csv::Position::line);
        self.wrong = None;
        match read {
            Ok(is_there) => Ok(is_there),
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(_) => Err(error.into()),
                _ => {
                    self.wrong = Some("it is not UTF-8".to_owned());
                    Ok(true)
                }
            },
        }
    }

    pub(super) fn row(&self, number: u64) -> Result<Row, BadRow> {
        let cell = |name: &str| {
            let column = self.heading.iter().position(|heading| heading == name)?;
            self.record.get(column).filter(|cell| !cell.is_empty())
        };
        let id = match &self.wrong {
            None => cell("id").map(|id| Value::String(id.to_owned())),
            Some(_) => None,
        };
        let id = id.unwrap_or_else(|| made_id(number));
        let wrong = self.wrong.clone().or_else(|| {
            let (has, headings) = (self.record.len(), self.heading.len());
            (has != headings).then(|| format!("{has} cells under {headings} headings"))
        });
        if let Some(what) = wrong {
            return Err(BadRow {
                line: self.line,
                id,
                what,
            });
        }
        let cells = self.heading.iter().zip(&self.record);
        let fields: Map<String, Value> = cells
            .filter(|(name, cell)| *name != "id" && !cell.is_empty())
            .map(|(name, cell)| (name.to_owned(), value(name, cell)))
            .collect();
        Ok(Row {
            number,
            id,
            target: None,
            fields,
            bytes: self.record.as_slice().len(),
        })
    }
}

fn value(name: &str, cell: &str) -> Value {
    let text = || Value::String(cell.to_owned());
    if TEXTS.contains(&name) {
        return text();
    }
    serde_json::from_str(cell).unwrap_or_else(|_| text())
}
