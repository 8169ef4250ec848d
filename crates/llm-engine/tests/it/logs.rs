//! What the log says, and what it never does.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::{Answer, Frames, STREAM, SYNC, prompt};
use crate::server::{Options, Server, Turn, model};
use crate::until::until;

const KEY: &str = "key-of-alice-Wq7Zr3Lk9";
const WRONG_KEY: &str = "key-of-nobody-Tn5Vb8Xc2";
const SECRET: &str = "the-heliotrope-password-is-Jm4Hd6";

const CALLER: &str = "[callers.alice]\napi_key_env = 'TEST_KEY_OF_ALICE'\n";

fn server(turn: &Turn, level: &str, format: &str) -> Server {
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\ntokens = { limit = 100_000, window = '1h' }";
    let options = Options {
        arguments: &["--log-format", format],
        environment: &[("LLM_ENGINE_LOG", level), ("TEST_KEY_OF_ALICE", KEY)],
    };
    Server::start_with(turn, &format!("{}{CALLER}{policy}", model("m", "")), options)
}

/// Requests of all sorts with a prompt that would be recognised: answered, streamed, refused, invalid, unauthorised.
async fn talk(server: &Server) {
    let text = format!("Remember that {SECRET}.");
    let expect = async |key: &str, target: &str, body: &Value, status: StatusCode| {
        let answer = Answer::read(server.post_as(key, target, body).await).await;
        assert_eq!(answer.status, status, "{answer:?}");
    };
    expect(KEY, SYNC, &prompt(&text, 5), StatusCode::OK).await;
    let stream = Frames::of(server.post_as(KEY, STREAM, &prompt(&text, 5)).await);
    assert!(!stream.rest().await.is_empty());
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": text }], "max_tokens": 5 });
    expect(KEY, "/v1/chat/completions", &chat, StatusCode::OK).await;
    expect(KEY, SYNC, &prompt(&text.repeat(300), 5), StatusCode::BAD_REQUEST).await;
    expect(KEY, SYNC, &prompt(&text, 100_001), StatusCode::BAD_REQUEST).await;
    let invalid = json!({ "prompt": [text], "max_new_tokens": 5, "temperature": 0 });
    expect(KEY, SYNC, &invalid, StatusCode::UNPROCESSABLE_ENTITY).await;
    expect(WRONG_KEY, SYNC, &prompt(&text, 5), StatusCode::UNAUTHORIZED).await;
}

/// The log when it has this many lines on requests.
async fn records(server: &Server, number: usize) -> String {
    let (log, _) = until(
        "the requests are in the log",
        Duration::from_secs(5),
        async || {
            let log = server.log();
            let records = log.lines().filter(|line| line.contains("llm_engine::request"));
            (records.count() >= number).then_some(log)
        },
    )
    .await;
    log
}

/// Each line of a log for machines.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn neither_a_key_nor_a_prompt_is_in_the_log_at_any_level() {
    let turn = Turn::take();
    for format in ["human", "json"] {
        // llama.cpp is kept quiet unless it is named.
        let server = server(&turn, "trace,llama-cpp-2=trace", format);
        talk(&server).await;
        let log = records(&server, 5).await;
        assert!(log.contains("TRACE"), "everything is logged");
        if format == "json" {
            assert!(lines(&log).len() > 100);
        }
        let secrets = [KEY, WRONG_KEY, SECRET, "heliotrope"];
        for secret in secrets
            .iter()
            .map(ToString::to_string)
            .chain(secrets.map(as_bytes))
        {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}

/// A text as the numbers of its bytes, as a program that writes out a buffer would log it.
fn as_bytes(text: &str) -> String {
    let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    numbers.join(", ")
}

#[tokio::test]
async fn each_request_is_one_record_of_who_asked_what_and_what_came_of_it() {
    let turn = Turn::take();
    let server = server(&turn, "info,llama-cpp-2=warn", "json");
    talk(&server).await;
    let log = records(&server, 5).await;
    let lines = lines(&log);
    let records: Vec<&Value> = lines
        .iter()
        .filter(|line| line["target"] == "llm_engine::request")
        .collect();
    // What is no request of a known caller, or can't be read, is answered and not recorded.
    let outcomes: Vec<&str> = records
        .iter()
        .map(|record| record["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        outcomes,
        [
            "completed",
            "completed",
            "completed",
            "upstream_rejected",
            "never_fits"
        ]
    );
    for record in &records {
        assert_eq!(record["caller"], "alice");
        assert_eq!(record["model"], "m");
        assert!(record["request_id"].is_string());
        assert!(record["duration_ms"].as_f64().unwrap() >= 0.0);
        assert!(record["timestamp"].is_string());
    }
    for record in &records[..3] {
        assert_eq!(record["status"], 200);
        assert_eq!(record["output_tokens"], 5);
        assert!(record["input_tokens"].as_u64().unwrap() > 5);
        assert_eq!(record["usage_estimated"], false);
        assert!(record["first_event_after_ms"].as_f64().unwrap() > 0.0);
    }
    for record in &records[3..] {
        assert_eq!(record["status"], 400);
        assert_eq!(record["output_tokens"], 0);
    }
}
