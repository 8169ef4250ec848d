//! `llm-engine check`: whether a configuration is good, and what it means.

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Finished, run};

async fn check(text: &str, more: &[&str]) -> (Finished, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("engine.toml");
    std::fs::write(&file, text).unwrap();
    let arguments = [&["check", file.to_str().unwrap()], more].concat();
    (run(&arguments).await, folder)
}

const GOOD: &str = "[models.m]\ndeployments = [{ url = 'http://127.0.0.1:9/v1', model = 'x' }]\n\
                    [[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 60, window = '1m', burst = 10 }\n";

#[tokio::test]
async fn the_policies_of_a_good_configuration_are_explained() {
    let (finished, _folder) = check(GOOD, &[]).await;
    assert_eq!(
        (finished.code, finished.errors.as_str()),
        (Some(0), ""),
        "{finished:?}"
    );
    for words in [
        "engine.toml is good",
        "m: x at http://127.0.0.1:9/v1; as many requests as it is found to be able to take at a time",
        "p: every request, each key",
        "10 requests at once; 60 requests come back every 1m",
        "at most 73 requests in the worst window",
        "429 rate_limited, with a Retry-After",
        "up to 1000 files of up to 104857600 bytes",
        "up to 1000 batches of up to 50000 rows, 4 running at a time, for 30days after their end",
    ] {
        assert!(finished.output.contains(words), "{words}\n{}", finished.output);
    }
}

#[tokio::test]
async fn it_says_where_traces_go_and_which() {
    let section = "[telemetry]\nendpoint = 'http://c:4318'\nservice_name = 'front'\nsampling_ratio = 0.25\n";
    let (finished, _folder) = check(&format!("{GOOD}{section}"), &[]).await;
    let words = "Traces of requests go to http://c:4318 as front: 25 % of those whose caller does not say";
    assert!(finished.output.contains(words), "{}", finished.output);
    let (finished, _folder) = check(&format!("{GOOD}[telemetry]\n"), &[]).await;
    assert!(
        finished.output.contains("OTEL_EXPORTER_OTLP_ENDPOINT"),
        "{}",
        finished.output
    );
    let (finished, _folder) = check(GOOD, &[]).await;
    assert!(!finished.output.contains("Traces"), "{}", finished.output);
}

#[tokio::test]
async fn for_programs_it_is_json() {
    let (finished, _folder) = check(GOOD, &["--json"]).await;
    let checked: Value = serde_json::from_str(&finished.output).unwrap();
    assert_eq!(checked["good"], true);
    assert_eq!(checked["policies"][0]["limits"][0]["worst_amount"], 73);
    assert_eq!(checked["files"]["keep_seconds"], 30 * 24 * 3600);
    assert_eq!(checked["batches"]["rows"], 50_000);
    let (finished, _folder) = check("lisen = 'x'\n", &["--json"]).await;
    assert_eq!(finished.code, Some(2));
    let checked: Value = serde_json::from_str(&finished.output).unwrap();
    assert_eq!(checked["good"], false);
    let mistake = &checked["mistakes"][0];
    assert_eq!((&mistake["line"], &mistake["column"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn every_mistake_is_told_with_its_place_and_exit_code_2() {
    let text = "listen = 'nowhere'\n[models.m]\ngguf = 'missing.gguf'\nqueue_wait = 'soon'\n";
    let (finished, _folder) = check(text, &[]).await;
    assert_eq!(
        (finished.code, finished.output.as_str()),
        (Some(2), ""),
        "{finished:?}"
    );
    let lines: Vec<&str> = finished.errors.lines().collect();
    assert!(lines[0].starts_with("error: ") && lines[0].contains("engine.toml:1:10: listen is 'nowhere'"));
    assert!(
        lines[1].contains("engine.toml:4:14: queue_wait is 'soon'"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_model_file_that_is_absent_or_wrong_is_told_with_its_place() {
    for (gguf, message) in [
        ("missing.gguf", "does not exist"),
        ("engine.toml", "is not a GGUF file"),
        (".", "is not a file"),
        ("pip:x==1/y.gguf", "add sha256"),
    ] {
        let (finished, _folder) = check(&format!("[models.m]\ngguf = '{gguf}'\n"), &[]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        let is_placed = finished.errors.contains("engine.toml:2:8: ");
        assert!(
            is_placed && finished.errors.contains(message),
            "{}",
            finished.errors
        );
    }
}

#[tokio::test]
async fn the_example_is_good_and_the_schema_is_printed() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/llm-engine.toml");
    let finished = run(&["check", example]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = run(&["check", "--schema"]).await;
    let schema: Value = serde_json::from_str(&finished.output).unwrap();
    assert_eq!(schema["title"], "LLM Engine");
}
