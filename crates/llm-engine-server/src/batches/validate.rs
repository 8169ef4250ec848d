//! Whether a file has the lines of a batch of OpenAI's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use llm_engine_wire::openai::BatchError;
use serde_json::{Map, Value};

use crate::request_body::{MAX_BODY_BYTES, MAX_VALUES, values};

/// So many mistakes are told.
const MOST_ERRORS: usize = 100;

/// How many lines there are that can be sent, or what is wrong. Reads the file once; blocks.
pub(super) fn validate(
    path: &Path,
    endpoint: &str,
    most_rows: u64,
) -> io::Result<Result<u64, Vec<BatchError>>> {
    let mut file = BufReader::with_capacity(256 << 10, File::open(path)?);
    let mut lines = Lines {
        endpoint,
        ids: HashMap::new(),
        errors: Vec::new(),
    };
    let mut line = Vec::new();
    let mut number = 0;
    let mut rows = 0;
    while lines.errors.len() < MOST_ERRORS {
        line.clear();
        let read = (&mut file)
            .take(MAX_BODY_BYTES as u64 + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        number += 1;
        if read > MAX_BODY_BYTES {
            let message = format!("the line is longer than {MAX_BODY_BYTES} bytes");
            lines.wrong(number, "line_too_long", None, message);
            file.skip_until(b'\n')?;
            continue;
        }
        let text = line
            .strip_prefix(b"\xef\xbb\xbf")
            .filter(|_| number == 1)
            .unwrap_or(&line);
        if text.trim_ascii().is_empty() {
            continue;
        }
        rows += 1;
        if rows > most_rows {
            let message = format!("the file has more than {most_rows} lines, which is the most");
            lines.wrong(number, "too_many_rows", None, message);
            break;
        }
        lines.look_at(number, text);
    }
    if rows == 0 && lines.errors.is_empty() {
        lines.errors.push(failure("empty_file", "the file has no lines"));
    }
    Ok(if lines.errors.is_empty() {
        Ok(rows)
    } else {
        Err(lines.errors)
    })
}

struct Lines<'a> {
    endpoint: &'a str,
    /// And in which line each was.
    ids: HashMap<String, u64>,
    errors: Vec<BatchError>,
}

/// Why a batch can't be run, as a whole.
pub(crate) fn failure(code: &str, message: &str) -> BatchError {
    BatchError {
        code: code.to_owned(),
        line: None,
        message: message.to_owned(),
        param: None,
    }
}

impl Lines<'_> {
    fn wrong(&mut self, line: u64, code: &str, param: Option<&str>, message: String) {
        let param = param.map(str::to_owned);
        self.errors.push(BatchError {
            code: code.to_owned(),
            line: Some(line),
            message,
            param,
        });
    }

    fn look_at(&mut self, line: u64, text: &[u8]) {
        if values(text) > MAX_VALUES {
            let message = format!("the line has more than {MAX_VALUES} JSON values");
            return self.wrong(line, "too_many_values", None, message);
        }
        let fields: Map<String, Value> = match serde_json::from_slice(text) {
            Ok(fields) => fields,
            Err(error) => {
                let message = format!("the line is not a JSON object: {error}");
                return self.wrong(line, "invalid_json_line", None, message);
            }
        };
        match fields.get("custom_id").and_then(Value::as_str) {
            Some(id) if !id.is_empty() => {
                if let Some(first) = self.ids.insert(id.to_owned(), line) {
                    let message = format!("line {first} has this custom_id too");
                    self.wrong(line, "duplicate_custom_id", Some("custom_id"), message);
                }
            }
            _ => {
                let message = "custom_id must be a text by which the answer is known".to_owned();
                self.wrong(line, "missing_required_parameter", Some("custom_id"), message);
            }
        }
        if fields.get("method").and_then(Value::as_str) != Some("POST") {
            self.wrong(
                line,
                "invalid_method",
                Some("method"),
                "method must be \"POST\"".to_owned(),
            );
        }
        if fields.get("url").and_then(Value::as_str) != Some(self.endpoint) {
            let message = format!("url must be the batch's endpoint, \"{}\"", self.endpoint);
            self.wrong(line, "mismatched_url", Some("url"), message);
        }
        if !fields.get("body").is_some_and(Value::is_object) {
            let message = "body must be the JSON object of a request".to_owned();
            self.wrong(line, "missing_required_parameter", Some("body"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(text: &str) -> Result<u64, Vec<(String, Option<u64>)>> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        let validated = validate(file.path(), "/v1/completions", 3).expect("it is read");
        validated.map_err(|errors| errors.into_iter().map(|error| (error.code, error.line)).collect())
    }

    fn line(id: &str) -> String {
        format!(r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/completions", "body": {{}}}}"#)
    }

    #[test]
    fn lines_are_counted_without_the_empty_ones() {
        assert_eq!(
            validated(&format!("\u{feff}{}\n\n{}\n  \n", line("a"), line("b"))),
            Ok(2)
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let (a, b) = (line("a"), line("a").replace("POST", "GET"));
        let other = r#"{"custom_id": 5, "method": "POST", "url": "/v1/embeddings", "body": []}"#;
        let wrong = |code: &str, line| (code.to_owned(), Some(line));
        assert_eq!(
            validated(&format!("{a}\n\n{b}\n{other}")),
            Err(vec![
                wrong("duplicate_custom_id", 3),
                wrong("invalid_method", 3),
                wrong("missing_required_parameter", 4),
                wrong("mismatched_url", 4),
                wrong("missing_required_parameter", 4),
            ])
        );
        assert_eq!(
            validated("[1]\n{"),
            Err(vec![wrong("invalid_json_line", 1), wrong("invalid_json_line", 2)])
        );
    }

    #[test]
    fn none_and_too_many_are_mistakes() {
        assert_eq!(validated(" \n"), Err(vec![("empty_file".to_owned(), None)]));
        let lines: Vec<String> = (0..4).map(|number| line(&number.to_string())).collect();
        assert_eq!(
            validated(&lines.join("\n")),
            Err(vec![("too_many_rows".to_owned(), Some(4))])
        );
        let long = format!("\"{}\"\n{}", "x".repeat(MAX_BODY_BYTES), line("a"));
        assert_eq!(validated(&long), Err(vec![("line_too_long".to_owned(), Some(1))]));
    }
}
