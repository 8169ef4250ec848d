use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use llm_engine_gateway::{Fingerprint, Retry, Tokens};
use serde::Deserialize;
use serde_json::Value;

use super::{Request, Usage};

/// The log of a server, looked through once: what is in it can be read, and in which order it has to be.
///
/// A record is written when its request ends; the simulation needs requests in the order in which they began. How far the
/// two differ, the first look tells, so that the second can sort while it reads, and holds no more records than were
/// running at a time.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// With the number of their lines.
    files: Vec<(PathBuf, usize)>,
    /// Requests.
    pub(super) records: usize,
    /// Lines that are about something else.
    pub(super) skipped: usize,
    /// When the first request began.
    pub(super) start: Option<Timestamp>,
    /// The longest time by which a request began before the end of a request that is written before it.
    disorder: SignedDuration,
}

/// The target of the records, as `llm-engine-gateway` writes them.
const TARGET: &str = "llm_engine::request";

/// Threads overtake each other between taking the time of a record and writing it; files in the wrong order differ by more.
const OVERTAKEN: SignedDuration = SignedDuration::from_secs(60);

/// The fields of a record that matter here.
#[derive(Debug, Deserialize)]
struct Record {
    caller: String,
    model: String,
    route: String,
    outcome: String,
    asked_input_tokens: u64,
    asked_output_tokens: u64,
    input_tokens: u64,
    output_tokens: u64,
    /// Only if it was admitted and a model had a place for it.
    admitted_after_ms: Option<f64>,
    duration_ms: f64,
}

/// A record and when its request ended.
#[derive(Debug)]
struct Ended {
    record: Record,
    end: Timestamp,
    begin: Timestamp,
}

impl Log {
    /// Looks through the files.
    pub(super) fn survey(paths: &[PathBuf]) -> Result<Self, Usage> {
        let mut log = Self::default();
        let mut latest = Timestamp::MIN;
        for path in paths {
            let mut count = 0;
            for line in lines(path)? {
                count += 1;
                let at =
                    |error: &dyn std::fmt::Display| Usage(format!("{}:{count}: {error}", path.display()));
                let line = line.map_err(|error| at(&error))?;
                let Some(Ended { end, begin, .. }) = read(&line).map_err(|error| at(&error))? else {
                    log.skipped += 1;
                    continue;
                };
                if log.records > 0 && latest.duration_since(end) > OVERTAKEN {
                    let message = format!(
                        "this record is of {end}, and one before it of {latest}; give the files of a log in the order of \
                         their time"
                    );
                    return Err(at(&message));
                }
                log.records += 1;
                latest = latest.max(end);
                log.disorder = log.disorder.max(latest.duration_since(begin));
                log.start = Some(log.start.map_or(begin, |start| start.min(begin)));
            }
            log.files.push((path.clone(), count));
        }
        Ok(log)
    }
}

fn lines(path: &Path) -> Result<Lines<BufReader<File>>, Usage> {
    let file = File::open(path).map_err(|error| Usage(format!("--log {}: {error}", path.display())))?;
    Ok(BufReader::new(file).lines())
}

/// Why a line of a log can't be taken.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("this line is not JSON ({0}); the server writes a log of JSON with --log-format json")]
    NotJson(serde_json::Error),
    #[error("this record of a request can't be understood: {0}")]
    NotARecord(serde_json::Error),
    #[error("this record of a request has no timestamp such as 2026-11-24T08:14:01.5Z")]
    NoTimestamp,
    #[error("the duration of this request, {0} ms, is none")]
    Duration(f64),
}

/// The record of a line, if it is one of a request.
fn read(line: &str) -> Result<Option<Ended>, LineError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let mut line: Value = serde_json::from_str(line).map_err(LineError::NotJson)?;
    if line["target"] != TARGET {
        return Ok(None);
    }
    let end: Option<Timestamp> = line["timestamp"].as_str().and_then(|text| text.parse().ok());
    let end = end.ok_or(LineError::NoTimestamp)?;
    // The server writes its fields beside the others; the usual JSON log of `tracing` has them in an object of their own.
    let fields = match line.get_mut("fields") {
        Some(fields) => fields.take(),
        None => line,
    };
    let record: Record = serde_json::from_value(fields).map_err(LineError::NotARecord)?;
    let invalid = LineError::Duration(record.duration_ms);
    let duration = milliseconds(record.duration_ms);
    let begin = duration.and_then(|duration| end.checked_sub(duration).ok());
    let begin = begin.ok_or(invalid)?;
    Ok(Some(Ended { record, end, begin }))
}

fn milliseconds(count: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(count / 1e3).ok()
}

/// The requests of a log in the order in which they began.
#[derive(Debug)]
pub(super) struct LogRequests<'a> {
    log: &'a Log,
    retry: Retry,
    /// The file that is being read.
    file: usize,
    line: usize,
    lines: Option<Lines<BufReader<File>>>,
    /// Read and not yet taken, the earliest first.
    waiting: BinaryHeap<Reverse<Waiting>>,
    read: u64,
    latest: Timestamp,
    /// What the latest answered request for each model used, and how long it ran.
    answered: HashMap<String, (Tokens, Duration)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    request: Request,
}

impl<'a> LogRequests<'a> {
    pub(super) fn of(log: &'a Log, retry: Retry) -> Self {
        Self {
            log,
            retry,
            file: 0,
            line: 0,
            lines: None,
            waiting: BinaryHeap::new(),
            read: 0,
            latest: Timestamp::MIN,
            answered: HashMap::new(),
        }
    }

    /// The next line that there was at the first look: the server may have written more since then.
    fn next_line(&mut self) -> Result<Option<String>, Usage> {
        while let Some((path, count)) = self.log.files.get(self.file) {
            if self.line == *count {
                (self.file, self.line, self.lines) = (self.file + 1, 0, None);
                continue;
            }
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(lines(path)?),
            };
            self.line += 1;
            return match lines.next() {
                Some(Ok(line)) => Ok(Some(line)),
                Some(Err(error)) => Err(self.at(&error)),
                None => {
                    Err(self
                        .at(&"the file was changed while it was read; it must be one that can be read twice"))
                }
            };
        }
        Ok(None)
    }

    fn at(&self, error: &dyn std::fmt::Display) -> Usage {
        let path = self
            .log
            .files
            .get(self.file)
            .map(|(path, _)| path.display().to_string());
        Usage(format!("{}:{}: {error}", path.unwrap_or_default(), self.line))
    }

    /// Reads one more line; `false`: there is none.
    fn read_more(&mut self) -> Result<bool, Usage> {
        let Some(line) = self.next_line()? else {
            return Ok(false);
        };
        if let Some(ended) = read(&line).map_err(|error| self.at(&error))? {
            self.latest = self.latest.max(ended.end);
            let request = self.request(ended);
            let number = self.read;
            self.waiting.push(Reverse(Waiting { number, request }));
            self.read += 1;
        }
        Ok(true)
    }

    fn request(&mut self, ended: Ended) -> Request {
        let Ended { record, begin, .. } = ended;
        let Record {
            caller,
            model,
            route,
            outcome,
            asked_input_tokens,
            asked_output_tokens,
            input_tokens,
            output_tokens,
            admitted_after_ms,
            duration_ms,
        } = record;
        let asked = Tokens {
            input: asked_input_tokens,
            output: asked_output_tokens,
        };
        let (used, lasts) = match admitted_after_ms {
            Some(admitted_after) => {
                let used = Tokens {
                    input: input_tokens,
                    output: output_tokens,
                };
                let lasts = milliseconds(duration_ms - admitted_after).unwrap_or_default();
                if outcome == "completed" {
                    self.answered.insert(model.clone(), (used, lasts));
                }
                (Some(used), lasts)
            }
            None if WITHOUT_A_MODEL.contains(&outcome.as_str()) => (None, Duration::ZERO),
            None => match self.answered.get(&model) {
                Some((used, lasts)) => {
                    let at_most = Tokens {
                        input: asked.input,
                        output: used.output.min(asked.output),
                    };
                    (Some(at_most), *lasts)
                }
                None => (Some(asked), Duration::ZERO),
            },
        };
        let mut hasher = DefaultHasher::new();
        (&caller, &model, asked.input, asked.output).hash(&mut hasher);
        Request {
            at: begin,
            caller,
            model,
            route,
            asked,
            used,
            lasts,
            fingerprint: Fingerprint {
                digest: hasher.finish(),
                is_unique: false,
            },
            retry: self.retry,
            attempts: ATTEMPTS,
        }
    }
}

/// How requests end for which there was no model, although the policies had nothing against them.
const WITHOUT_A_MODEL: &[&str] = &["saturated", "no_deployment", "draining"];

/// As often as the published clients try.
const ATTEMPTS: u32 = 6;

impl Iterator for LogRequests<'_> {
    type Item = Result<Request, Usage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // What is still to be read began after that, or the first look would have told otherwise.
            let is_next = |waiting: &Waiting, latest: Timestamp, disorder: SignedDuration| {
                latest.duration_since(waiting.request.at) >= disorder
            };
            if let Some(Reverse(first)) = self.waiting.peek()
                && is_next(first, self.latest, self.log.disorder)
            {
                break;
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        self.waiting.pop().map(|Reverse(first)| Ok(first.request))
    }
}

impl Waiting {
    fn order(&self) -> (Timestamp, u64) {
        (self.request.at, self.number)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A record that ended so many seconds after the first of them, and took so long.
    fn record(end: u32, seconds: u32) -> Value {
        json!({
            "timestamp": format!("2026-11-24T08:{:02}:{:02}.000000Z", end / 60, end % 60),
            "level": "INFO", "target": "llm_engine::request", "message": "request",
            "request_id": format!("r-{end}"), "caller": "alice", "model": "m", "route": "/v1/chat/completions",
            "outcome": "completed", "status": 200, "asked_input_tokens": 40, "asked_output_tokens": 512,
            "input_tokens": 40, "output_tokens": 100, "usage_estimated": false, "nano_usd": 0,
            "admitted_after_ms": 1000.0, "first_event_after_ms": 1200.0, "duration_ms": seconds * 1000,
        })
    }

    /// What a request looks like that was refused.
    fn refused(end: u32, outcome: &str) -> Value {
        let mut record = record(end, 0);
        record["outcome"] = outcome.into();
        record["output_tokens"] = 0.into();
        record["asked_output_tokens"] = 50.into();
        record.as_object_mut().unwrap().remove("admitted_after_ms");
        record
    }

    fn file(folder: &TempDir, name: &str, lines: &[String]) -> PathBuf {
        let path = folder.path().join(name);
        let mut text = String::new();
        lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        std::fs::write(&path, text).unwrap();
        path
    }

    fn surveyed(lines: &[String]) -> (TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::survey(&[file(&folder, "a.jsonl", lines)]).unwrap();
        (folder, log)
    }

    fn requests(log: &Log) -> Vec<Request> {
        LogRequests::of(log, Retry::Never).map(Result::unwrap).collect()
    }

    fn message(lines: &[String]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let Usage(message) = Log::survey(&[file(&folder, "a.jsonl", lines)]).unwrap_err();
        message.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn records_come_in_the_order_in_which_their_requests_began() {
        let ends = [
            (10, 1),
            (20, 19),
            (21, 1),
            (19, 5),
            (100, 10),
            (101, 30),
            (160, 1),
        ];
        let lines: Vec<String> = ends
            .iter()
            .map(|(end, seconds)| record(*end, *seconds).to_string())
            .collect();
        let (_folder, log) = surveyed(&lines);
        assert_eq!(log.disorder, SignedDuration::from_secs(30));
        let begins: Vec<String> = requests(&log)
            .iter()
            .map(|request| request.at.to_string())
            .collect();
        let expected = ["00:01", "00:09", "00:14", "00:20", "01:11", "01:30", "02:39"];
        assert_eq!(begins, expected.map(|time| format!("2026-11-24T08:{time}Z")));
        assert_eq!(log.start.unwrap().to_string(), begins[0]);
    }

    #[test]
    fn no_more_records_are_held_than_were_running_at_a_time() {
        let lines: Vec<String> = (0..2_000).map(|end| record(end, end % 10).to_string()).collect();
        let (_folder, log) = surveyed(&lines);
        let mut requests = LogRequests::of(&log, Retry::Never);
        let mut count = 0;
        while requests.next().is_some() {
            count += 1;
            assert!(requests.waiting.len() <= 10, "{}", requests.waiting.len());
        }
        assert_eq!(count, 2_000);
    }

    #[test]
    fn what_was_admitted_uses_what_it_used_and_what_was_refused_what_others_do() {
        let lines = [
            refused(0, "rate_limited"),
            record(10, 4),
            refused(11, "budget_exhausted"),
            refused(12, "saturated"),
        ];
        let (_folder, log) = surveyed(&lines.map(|line| line.to_string()));
        let tokens = |input, output| Some(Tokens { input, output });
        let used = requests(&log)
            .into_iter()
            .map(|request| (request.used, request.lasts.as_secs()));
        assert_eq!(
            used.collect::<Vec<_>>(),
            [
                (tokens(40, 50), 0),
                (tokens(40, 100), 3),
                (tokens(40, 50), 3),
                (None, 0)
            ]
        );
    }

    #[test]
    fn retries_are_recognised_by_what_they_ask_for() {
        let lines = [
            refused(0, "rate_limited"),
            refused(2, "rate_limited"),
            record(3, 1),
        ];
        let (_folder, log) = surveyed(&lines.map(|line| line.to_string()));
        let [first, again, other] = requests(&log).try_into().unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        assert_ne!(first.fingerprint, other.fingerprint);
    }

    #[test]
    fn lines_about_something_else_are_skipped_and_counted() {
        let nested =
            json!({ "timestamp": record(5, 0)["timestamp"], "target": TARGET, "fields": record(5, 0) });
        let lines = [
            json!({ "timestamp": "2026-11-24T08:00:00Z", "target": "llm_engine_server::serve", "message": "x" }).to_string(),
            record(1, 0).to_string(),
            String::new(),
            nested.to_string(),
        ];
        let (_folder, log) = surveyed(&lines);
        assert_eq!((log.records, log.skipped, requests(&log).len()), (2, 2, 2));
    }

    #[test]
    fn several_files_are_one_log() {
        let folder = tempfile::tempdir().unwrap();
        let lines = |from: u32| [record(from, 0).to_string(), record(from + 100, 50).to_string()];
        let (old, new) = (file(&folder, "old", &lines(0)), file(&folder, "new", &lines(200)));
        let log = Log::survey(&[old.clone(), new.clone()]).unwrap();
        assert_eq!(requests(&log).len(), 4);
        let Usage(message) = Log::survey(&[new, old]).unwrap_err();
        assert!(
            message.contains("old:1: this record is of 2026-11-24T08:00:00Z"),
            "{message}"
        );
        assert!(
            message.ends_with("give the files of a log in the order of their time"),
            "{message}"
        );
    }

    #[test]
    fn what_a_log_grows_by_meanwhile_is_left_out() {
        let (folder, log) = surveyed(&[record(1, 0).to_string()]);
        file(&folder, "a.jsonl", &[record(1, 0).to_string(), "{".to_owned()]);
        assert_eq!(requests(&log).len(), 1);
        file(&folder, "a.jsonl", &[]);
        let Some(Err(Usage(message))) = LogRequests::of(&log, Retry::Never).next() else {
            panic!("the file is empty now")
        };
        assert!(message.contains("a.jsonl:1: the file was changed"), "{message}");
    }

    #[test]
    fn each_mistake_in_a_log_is_told_with_its_line() {
        let changed = |field: &str, value: Value| {
            let mut record = record(9, 0);
            record[field] = value;
            record.to_string()
        };
        for (line, expected) in [
            (
                "2026-11-24T08:14:01Z  INFO request".to_owned(),
                "a.jsonl:2: this line is not JSON",
            ),
            (
                changed("caller", Value::Null),
                "a.jsonl:2: this record of a request can't be understood",
            ),
            (
                changed("timestamp", "today".into()),
                "a.jsonl:2: this record of a request has no timestamp",
            ),
            (
                changed("duration_ms", (-1).into()),
                "a.jsonl:2: the duration of this request, -1 ms,",
            ),
        ] {
            let message = message(&[record(1, 0).to_string(), line]);
            assert!(message.starts_with(expected), "{message}");
        }
        let Usage(message) = Log::survey(&["/no/such/log".into()]).unwrap_err();
        assert!(message.starts_with("--log /no/such/log: "), "{message}");
    }
}
