//! Limits that change while the server runs.

use std::fs::File;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;

use crate::client::prompt;
use crate::server::{Server, Turn, signal};
use crate::until::until;
use crate::upstream::{answer_at_once, deployed_model};

/// The file is looked at each second.
const PATIENCE: Duration = Duration::from_secs(10);

const IN_FORCE: &str = "the configuration was read again and is in force";
const NOT_USED: &str = "the configuration can't be used; what was in force before still is";

/// A policy that admits so many requests an hour.
fn policy(limit: u64) -> String {
    format!("[[policies]]\nname = 'hour'\nper = ['key']\nrequests = {{ limit = {limit}, window = '1h' }}\n")
}

/// How many requests an hour are allowed now.
async fn limit(server: &Server) -> u64 {
    server.limits().await[0]["limit"].as_u64().unwrap()
}

async fn until_limit(server: &Server, expected: u64) {
    until("the new limit is in force", PATIENCE, async || {
        (limit(server).await == expected).then_some(())
    })
    .await;
}

async fn until_logged(server: &Server, text: &str, times: usize) {
    until(text, PATIENCE, async || {
        (server.log().matches(text).count() >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn told_by_sighup_it_reads_its_configuration_again_and_forgets_nothing() {
    let turn = Turn::take();
    let model = deployed_model(answer_at_once);
    let server = Server::start(&turn, &format!("{model}{}", policy(2)));
    server.complete(&prompt("p", 1)).await.text();
    server.complete(&prompt("p", 1)).await.text();
    let refused = server.complete(&prompt("p", 1)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");

    let unchanged = std::fs::metadata(server.config()).unwrap().modified().unwrap();
    server.configure(&format!("{model}{}", policy(100)));
    // To whoever only looks at the time it is the same file.
    let config = File::options().write(true).open(server.config()).unwrap();
    config.set_modified(unchanged).unwrap();
    signal(server.process(), "HUP");
    until_limit(&server, 100).await;
    until_logged(&server, IN_FORCE, 1).await;

    let answer = server.complete(&prompt("p", 1)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(
        answer.remaining("hour/requests"),
        97,
        "what was used before is still used: {answer:?}"
    );
}

#[tokio::test]
async fn a_changed_file_is_in_force_by_itself() {
    let turn = Turn::take();
    let model = deployed_model(answer_at_once);
    let server = Server::start(&turn, &format!("{model}{}", policy(2)));
    for (times, expected) in [(1, 50), (2, 3)] {
        // Some systems count a file's time in milliseconds.
        until("the file's time is another", PATIENCE, async || {
            let modified = std::fs::metadata(server.config()).unwrap().modified().unwrap();
            (modified.elapsed().unwrap() > Duration::from_millis(20)).then_some(())
        })
        .await;
        server.configure(&format!("{model}{}", policy(expected)));
        until_limit(&server, expected).await;
        until_logged(&server, IN_FORCE, times).await;
    }
    let metrics = server.get("/metrics").await.body;
    assert!(
        metrics.contains("llm_engine_config_reloads_total{result=\"ok\"} 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_configuration_that_can_t_be_used_changes_nothing_and_is_told_with_file_line_and_reason() {
    let turn = Turn::take();
    let model = deployed_model(answer_at_once);
    let server = Server::start(&turn, &format!("{model}{}", policy(2)));

    server.configure(&format!("{model}{}unts = 3\n", policy(100)));
    until_logged(&server, NOT_USED, 1).await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains(NOT_USED)).unwrap();
    // The mistake is in the line that was added.
    let number = std::fs::read_to_string(server.config()).unwrap().lines().count();
    let place = format!("{}:{number}:1: unknown field `unts`", server.config().display());
    assert!(line.contains("ERROR") && line.contains(&place), "{line}");

    assert_eq!(limit(&server).await, 2);
    server.complete(&prompt("p", 1)).await.text();
    server.complete(&prompt("p", 1)).await.text();
    let refused = server.complete(&prompt("p", 1)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{refused:?}");
    let metrics = server.get("/metrics").await.body;
    for line in [
        "llm_engine_config_reloads_total{result=\"failed\"} 1\n",
        "llm_engine_config_last_reload_succeeded 0\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }

    server.configure(&format!("{model}{}", policy(100)));
    let config = File::options().write(true).open(server.config()).unwrap();
    config
        .set_modified(SystemTime::now() + Duration::from_secs(1))
        .unwrap();
    until_limit(&server, 100).await;
    let metrics = server.get("/metrics").await.body;
    assert!(
        metrics.contains("llm_engine_config_last_reload_succeeded 1\n"),
        "{metrics}"
    );
}
