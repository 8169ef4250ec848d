use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};

use serde_json::{Map, Value};

use super::{given_id, made_id};
use crate::{BadRow, Row};

/// A longer line is no request, and must not fill the memory.
pub(super) const LONGEST_ROW: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct JsonLines {
    file: BufReader<File>,
    /// The current line, without its end.
    line: Vec<u8>,
    number: u64,
    is_too_long: bool,
}

impl JsonLines {
    pub(super) fn new(file: File) -> Self {
        Self {
            file: BufReader::with_capacity(256 << 10, file),
            line: Vec::new(),
            number: 0,
            is_too_long: false,
        }
    }

    /// Empty lines are no rows.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        loop {
            self.line.clear();
            let mut bounded = (&mut self.file).take(LONGEST_ROW as u64);
            let read = bounded.read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            self.is_too_long = read == LONGEST_ROW && self.line.last() != Some(&b'\n');
            if self.is_too_long {
                self.line.clear();
                self.line.shrink_to(0);
                self.file.skip_until(b'\n')?;
                return Ok(true);
            }
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    pub(super) fn row(&self, number: u64) -> Result<Row, BadRow> {
        let bad = |id: Option<Value>, what: String| BadRow {
            line: self.number,
            id: id.unwrap_or_else(|| made_id(number)),
            what,
        };
        if self.is_too_long {
            return Err(bad(None, format!("longer than {} MiB", LONGEST_ROW >> 20)));
        }
        let fields: Map<String, Value> = serde_json::from_slice(&self.line)
            .map_err(|error| bad(None, format!("not a JSON object: {}", without_place(&error))))?;
        let bytes = self.line.len();
        if fields.contains_key("custom_id") || fields.contains_key("body") {
            openai_row(number, fields, bytes).map_err(|(id, what)| bad(id, what))
        } else {
            simple_row(number, fields, bytes).map_err(|(id, what)| bad(id, what))
        }
    }
}

type Wrong = (Option<Value>, String);

/// `{"custom_id", "method", "url", "body"}`.
fn openai_row(number: u64, mut fields: Map<String, Value>, bytes: usize) -> Result<Row, Wrong> {
    let id = fields.get("custom_id").and_then(given_id);
    if id.is_none() && fields.contains_key("custom_id") {
        return Err((None, "custom_id must be a text".to_owned()));
    }
    if let Some(method) = fields.get("method")
        && method.as_str() != Some("POST")
    {
        return Err((id, format!("the method {method} can't be sent, only \"POST\"")));
    }
    let target = match fields.get("url") {
        None => None,
        Some(Value::String(url)) => Some(url.clone()),
        Some(_) => return Err((id, "url must be a text".to_owned())),
    };
    match fields.remove("body") {
        Some(Value::Object(body)) => Ok(Row {
            number,
            id: id.unwrap_or_else(|| made_id(number)),
            target,
            fields: body,
            bytes,
        }),
        _ => Err((id, "body must be a JSON object".to_owned())),
    }
}

/// A request, with an `id` beside its fields.
fn simple_row(number: u64, mut fields: Map<String, Value>, bytes: usize) -> Result<Row, Wrong> {
    let id = match fields.shift_remove("id") {
        None => None,
        Some(value) => match given_id(&value) {
            Some(id) => Some(id),
            None => return Err((None, "id must be a text or a whole number".to_owned())),
        },
    };
    if !fields.contains_key("prompt") && !fields.contains_key("messages") {
        let what = "there is no prompt, no messages, and no body of a request";
        return Err((id, what.to_owned()));
    }
    Ok(Row {
        number,
        id: id.unwrap_or_else(|| made_id(number)),
        target: None,
        fields,
        bytes,
    })
}

/// The line is known, and is not the first one as serde thinks.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} at column {}", &text[..at], error.column()),
        None => text,
    }
}
