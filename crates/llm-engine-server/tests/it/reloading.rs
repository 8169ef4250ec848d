use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use llm_engine_server::Reloader;
use scripted_upstream::{Upstream, freeze};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::advance;

use crate::harness::{Answer, Log, SYNC, Server, config, metric, piece, prompt, quick, running_stream};

/// A server, its configuration file, and what puts the file in force.
struct Reloading {
    server: Server,
    upstream: String,
    folder: TempDir,
    reloader: Reloader,
}

impl Reloading {
    async fn start(upstream: &str, policies: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(upstream, policies).await;
        let path = folder.path().join("llm-engine.toml");
        std::fs::write(&path, config(upstream, policies)).unwrap();
        let reloader = Reloader::new(server.app.clone(), path, server.config.clone());
        Self {
            server,
            upstream: upstream.to_owned(),
            folder,
            reloader,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("llm-engine.toml")
    }

    /// Puts other policies in force.
    fn reload(&mut self, policies: &str) {
        std::fs::write(self.path(), config(&self.upstream, policies)).unwrap();
        self.reloader.reload();
    }

    async fn metric(&self, name: &str) -> Option<String> {
        metric(&self.server, name).await
    }
}

const OK: &str = "llm_engine_config_reloads_total{result=\"ok\"}";
const FAILED: &str = "llm_engine_config_reloads_total{result=\"failed\"}";
const SUCCEEDED: &str = "llm_engine_config_last_reload_succeeded";

fn requests(limit: u64) -> String {
    format!("[[policies]]\nname = 'p'\nper = ['key']\nrequests = {{ limit = {limit}, window = '1h' }}")
}

fn left(answer: &Answer) -> &str {
    answer.header("x-ratelimit-remaining-requests").unwrap()
}

#[tokio::test]
async fn other_limits_are_in_force_at_once_and_what_was_used_stays_used() {
    let _frozen = freeze();
    let mut reloading = Reloading::start(&quick().await, &requests(10)).await;
    for _ in 0..4 {
        reloading.server.complete().await;
    }
    // Six of ten are left: of twenty there are sixteen, of five one.
    reloading.reload(&requests(20));
    assert_eq!(left(&reloading.server.complete().await), "15");
    reloading.reload(&requests(6));
    assert_eq!(left(&reloading.server.complete().await), "0");
    assert_eq!(
        reloading.server.complete().await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(
        Answer::read(reloading.server.post_as("other", SYNC, &prompt(5)).await)
            .await
            .header("x-ratelimit-limit-requests"),
        Some("6")
    );
}

#[tokio::test]
async fn nobody_gains_more_than_the_new_burst() {
    let _frozen = freeze();
    let mut reloading = Reloading::start(&quick().await, &requests(100)).await;
    reloading.server.complete().await;
    reloading.reload(&requests(3));
    let mut admitted = 0;
    while reloading.server.complete().await.status == StatusCode::OK {
        admitted += 1;
    }
    assert!(admitted <= 3, "{admitted}");
    // Nor by changing it to and fro.
    for limit in [100, 3, 7, 3] {
        reloading.reload(&requests(limit));
    }
    let mut admitted = 0;
    while reloading.server.complete().await.status == StatusCode::OK {
        admitted += 1;
    }
    assert_eq!(admitted, 0);
}

#[tokio::test]
async fn requests_that_are_running_go_on_and_count() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let policy = |most: u32| format!("[[policies]]\nname = 'p'\nper = ['key']\nconcurrency = {most}");
    let mut reloading = Reloading::start(upstream.url(), &policy(5)).await;
    let (mut running, stream) = running_stream(&reloading.server, &mut upstream, 60).await;
    reloading.reload(&policy(1));
    let server = &reloading.server;
    let beyond = server.complete().await;
    assert_eq!(beyond.status, StatusCode::TOO_MANY_REQUESTS);
    stream.text("b");
    stream.finish("stop");
    stream.usage(3, 2);
    stream.done();
    let mut rest = String::new();
    while !rest.contains("\"finished\":true") {
        rest.push_str(&piece(&mut running).await);
    }
    assert!(rest.contains("\"text\":\"b\""));
    server.settle().await;
    let (next, ()) = tokio::join!(server.complete(), async {
        upstream.next().await.answer_words(3, &["a"]);
    });
    assert_eq!(next.status, StatusCode::OK, "its place is free");
}

#[tokio::test]
async fn other_callers_are_in_force_at_once() {
    let _frozen = freeze();
    let mut reloading = Reloading::start(&quick().await, &requests(10)).await;
    let new = "[callers.operator]\noperator = true\n\
               api_key_sha256 = '06e55b633481f7bb072957eabcf110c972e86691c3cfedabe088024bffe42f23'";
    let send = async |server: &Server| server.get_as("operator", "/v1/limits").await.status;
    assert_eq!(send(&reloading.server).await, StatusCode::UNAUTHORIZED);
    reloading.reload(&format!("{new}\n{}", requests(10)));
    assert_eq!(send(&reloading.server).await, StatusCode::OK);
    reloading.reload(&requests(10));
    assert_eq!(send(&reloading.server).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_file_that_can_t_be_used_changes_nothing_and_is_counted_until_one_can_be_used_again() {
    let _frozen = freeze();
    let log = Log::default();
    let _logging = log.begin();
    let mut reloading = Reloading::start(&quick().await, &requests(10)).await;
    assert_eq!(left(&reloading.server.complete().await), "9");
    assert_eq!(reloading.metric(SUCCEEDED).await.as_deref(), Some("1"));
    assert_eq!(reloading.metric(FAILED).await, None);
    let bad = [
        (
            "[[policies]]\nname = 'p'\nrequests = { limit = 0, window = '1h' }",
            "the limit is 0",
        ),
        (
            "[[policies]]\nname = 'p'\nrequests = { limit = 1, windw = '1h' }",
            "unknown field `windw`",
        ),
        ("[[policies]\n", "llm-engine.toml:"),
    ];
    for (count, (policies, reason)) in (1..).zip(bad) {
        reloading.reload(policies);
        let line = last_line(&log);
        assert!(line.contains("ERROR") && line.contains(reason), "{line}");
        assert!(line.contains("what was in force before still is"), "{line}");
        assert_eq!(reloading.metric(SUCCEEDED).await.as_deref(), Some("0"));
        assert_eq!(reloading.metric(FAILED).await, Some(count.to_string()));
        let expected = (9 - count).to_string();
        assert_eq!(left(&reloading.server.complete().await), expected);
    }
    std::fs::remove_file(reloading.path()).unwrap();
    reloading.reloader.reload();
    assert!(
        last_line(&log).contains("it can't be read"),
        "{}",
        last_line(&log)
    );
    assert_eq!(reloading.metric(FAILED).await.as_deref(), Some("4"));

    reloading.reload(&requests(20));
    assert_eq!(left(&reloading.server.complete().await), "15");
    assert_eq!(reloading.metric(SUCCEEDED).await.as_deref(), Some("1"));
    assert_eq!(reloading.metric(OK).await.as_deref(), Some("1"));
    assert!(last_line(&log).contains("INFO") && last_line(&log).contains("is in force"));
}

#[tokio::test]
async fn what_needs_a_restart_is_said_and_the_rest_is_in_force() {
    let _frozen = freeze();
    let log = Log::default();
    let _logging = log.begin();
    let mut reloading = Reloading::start(&quick().await, &requests(10)).await;
    let changed = config(&reloading.upstream, &format!("concurrency = 7\n{}", requests(20)));
    std::fs::write(reloading.path(), changed).unwrap();
    reloading.reloader.reload();
    let line = last_line(&log);
    assert!(line.contains("WARN") && line.contains("models"), "{line}");
    assert_eq!(left(&reloading.server.complete().await), "19");
}

#[tokio::test]
async fn the_file_is_read_when_it_changes_and_when_the_server_is_told_to() {
    let _frozen = freeze();
    let reloading = Reloading::start(&quick().await, &requests(10)).await;
    let Reloading {
        server,
        upstream,
        folder,
        reloader,
    } = reloading;
    let path = folder.path().join("llm-engine.toml");
    let told = Arc::new(Notify::new());
    let running = tokio::spawn(reloader.run(Arc::clone(&told)));
    server.settle().await;
    assert_eq!(left(&server.complete().await), "9");

    write_at(&path, &config(&upstream, &requests(20)), Duration::from_secs(10));
    assert_eq!(left(&server.complete().await), "8", "nobody has looked");
    advance(Duration::from_secs(1)).await;
    server.settle().await;
    assert_eq!(left(&server.complete().await), "17");
    advance(Duration::from_secs(5)).await;
    server.settle().await;
    assert_eq!(metric(&server, OK).await.as_deref(), Some("1"), "it is read once");

    // As if nothing had changed.
    write_at(&path, &config(&upstream, &requests(30)), Duration::from_secs(10));
    told.notify_one();
    server.settle().await;
    assert_eq!(metric(&server, OK).await.as_deref(), Some("2"));
    assert_eq!(
        server.complete().await.header("x-ratelimit-limit-requests"),
        Some("30")
    );
    running.abort();
}

/// Two changes can fall into one tick of the clock that files are dated by.
fn write_at(path: &Path, text: &str, after_epoch: Duration) {
    std::fs::write(path, text).unwrap();
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + after_epoch).unwrap();
}

/// The last line of the log about the configuration.
fn last_line(log: &Log) -> String {
    let mut lines = log.lines().into_iter();
    lines.rfind(|line| line.contains("llm-engine.toml")).unwrap()
}
