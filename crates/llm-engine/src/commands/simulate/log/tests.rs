use std::fmt::Write as _;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::record::TARGET;
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
    let nested = json!({ "timestamp": record(5, 0)["timestamp"], "target": TARGET, "fields": record(5, 0) });
    let lines = [
        json!({ "timestamp": "2026-11-24T08:00:00Z", "target": "llm_engine_server::serve", "message": "x" })
            .to_string(),
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
