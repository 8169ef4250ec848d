//! `llm-engine complete` against a running server.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::client::{ENDLESS, prompt};
use crate::program::{Finished, ended, run, run_reading, started};
use crate::server::{Server, Turn, model, signal};
use crate::until::until;

async fn complete(server: &Server, arguments: &[&str]) -> Finished {
    run(&[&["complete", "--url", &server.address, "--model", "m"], arguments].concat()).await
}

const GREEDY: &[&str] = &["--temperature", "0", "--max-new-tokens", "20", ENDLESS];

#[tokio::test]
async fn it_prints_the_text_and_nothing_else() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", ""));
    let text = server.complete(&prompt(ENDLESS, 20)).await.text();
    assert!(!text.is_empty());

    let finished = complete(&server, GREEDY).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    // Not even a line's end: standard output is a pipe.
    assert_eq!(finished.output, text);
    assert_eq!(finished.errors, "");

    // A slash at the end of the address does no harm.
    let url = format!("{}/", server.address);
    let arguments = [&["complete", "--url", &url, "--model", "m"], GREEDY].concat();
    assert_eq!(run(&arguments).await.output, text);

    let prompt = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(prompt.path(), ENDLESS).unwrap();
    let arguments = [&["complete", "--url", &url, "--model", "m"], &GREEDY[..4], &["-"]].concat();
    assert_eq!(run_reading(prompt.path(), &arguments).await.output, text);

    let finished = complete(&server, &[&["--json"], GREEDY].concat()).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.output).unwrap();
    assert_eq!(answer["output"]["text"], text.as_str());
    assert_eq!(answer["output"]["num_completion_tokens"], 20);
    assert!(answer["request_id"].is_string());
}

#[tokio::test]
async fn interrupted_it_ends_at_once_and_so_does_the_work_at_the_server() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", ""));
    let worker = server.worker("m");
    // As its text comes, and while it waits for the whole.
    for (number, json) in [(1, &[][..]), (2, &["--json"])] {
        let base = ["complete", "--url", &server.address, "--model", "m"];
        let mut program = started(&[&base, json, &["--max-new-tokens", "2000", ENDLESS]].concat());
        if json.is_empty() {
            let output = program.stdout.as_mut().unwrap();
            output.read_u8().await.unwrap();
        }
        until("it runs", Duration::from_secs(10), async || {
            (worker.metrics().await.running == 1).then_some(())
        })
        .await;
        let interrupted = Instant::now();
        signal(program.id().unwrap(), "INT");
        let within = Duration::from_secs(1);
        let (metrics, _) = until("its work has stopped", within, async || {
            let metrics = worker.metrics().await;
            (metrics.running == 0).then_some(metrics)
        })
        .await;
        assert_eq!(metrics.cancelled, number);
        let finished = ended(program).await;
        assert!(
            interrupted.elapsed() < Duration::from_secs(3),
            "{:?}",
            interrupted.elapsed()
        );
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.errors, "error: interrupted\n");
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_exit_code_1_with_the_server_s_sentence() {
    let turn = Turn::take();
    let policy = "[[policies]]\nname = 'one-an-hour'\nrequests = { limit = 1, window = '1h' }";
    let server = Server::start(&turn, &format!("{}{policy}", model("m", "")));
    assert_eq!(complete(&server, GREEDY).await.code, Some(0));
    for json in [&[][..], &["--json"]] {
        let refused = complete(&server, &[json, GREEDY].concat()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(refused.output, "");
        let sentence =
            "error: 429 Policy one-an-hour allows 1 request per hour, this request asks for 1 and 0 are left";
        assert!(refused.errors.starts_with(sentence), "{}", refused.errors);
        assert!(refused.errors.contains("try again in "), "{}", refused.errors);
    }
    for (arguments, expected) in [
        (&["--key", "wrong"][..], "error: 401 Could not authenticate user"),
        (&["--model", "n"], "error: 404 Model endpoint n not found"),
        (
            &["--max-new-tokens", "0"],
            "error: 400 max_new_tokens must be at least 1",
        ),
    ] {
        let base = ["complete", "--url", &server.address, "Hello"];
        let refused = run(&[&base, arguments].concat()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.errors.starts_with(expected),
            "{expected}: {}",
            refused.errors
        );
    }
}
