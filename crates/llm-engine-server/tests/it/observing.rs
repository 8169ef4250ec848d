//! What an operator sees of requests: the log record and the metrics, and that both are as the README says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use scripted_upstream::Upstream;
use serde_json::{Value, json};
use tracing::field::FieldSet;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::harness::{Answer, Server, chat, config, metric, quick};

const README: &str = include_str!("../../../../README.md");

/// The words in code in the first column of the table under this headline.
fn documented(headline: &str) -> BTreeSet<String> {
    let (_, text) = README.split_once(headline).unwrap();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// The names of the fields of a request's record.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<String>>>);

impl<S: Subscriber> Layer<S> for Names {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "llm_engine::request" {
            let names = FieldSet::iter(event.metadata().fields()).map(|field| field.name().to_owned());
            self.0
                .lock()
                .unwrap()
                .extend(names.filter(|name| name != "message"));
        }
    }
}

#[tokio::test]
async fn a_request_s_record_has_the_fields_that_the_readme_names() {
    let names = Names::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(names.clone()));
    let server = Server::start(&quick().await, "").await;
    server.complete().await;
    let found = names.0.lock().unwrap().clone();
    assert_eq!(found, documented("### The log"));
}

const POLICY: &str = "[[policies]]\nname = 'two'\nrequests = { limit = 2, window = '1h' }\n";

async fn metrics(server: &Server) -> String {
    Answer::read(server.send("GET", "/metrics", &[], None).await)
        .await
        .body
}

/// A server on which there has been some of everything.
async fn used() -> Server {
    let upstream = Upstream::answering(|exchange| exchange.answer_as_asked(3, &["a", "b"])).await;
    let server = Server::start(&upstream, POLICY).await;
    let keyed = [("idempotency-key", "k1")];
    for _ in 0..2 {
        let answer = server.post_with(&keyed, "/v1/chat/completions", &chat()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(server.complete().await.status, 200);
    assert_eq!(server.complete().await.status, 429);
    let nobody = [("authorization", "Bearer nobody")];
    Answer::read(server.send("GET", "/v1/models", &nobody, None).await).await;
    server
}

#[tokio::test]
async fn the_metrics_are_those_of_the_readme() {
    let text = metrics(&used().await).await;
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE llm_engine_")?.split_once(' '));
    let found: BTreeSet<String> = lines
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    let documented = documented("### Metrics");
    assert!(found.is_subset(&documented), "{found:?}");
    // What has not happened has no labels, and is not there.
    let absent: Vec<&String> = documented.difference(&found).collect();
    let happened_to_none = [
        "batch_rows_total",
        "batches_total",
        "config_reloads_total",
        "deployments_set_aside_total",
        "queued_requests",
        "retries_left",
        "retries_total",
        "shed_requests_total",
        "trace_spans_total",
        "upstream_failures_total",
    ];
    assert_eq!(absent, happened_to_none);
}

const DASHBOARD: &str = include_str!("../../../../monitoring/grafana-dashboard.json");

/// The labels of each metric of the README's table.
fn documented_labels() -> BTreeMap<String, BTreeSet<String>> {
    let (_, text) = README.split_once("### Metrics").unwrap();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let words =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut labels = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        for name in words(cells[1]) {
            labels.insert(name, words(cells[2]).into_iter().collect());
        }
    }
    labels
}

#[test]
fn what_the_dashboard_shows_is_there() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let labels = documented_labels();
    let targets = dashboard["panels"].as_array().unwrap().iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut shown = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        let (_, name) = expression.split_once("llm_engine_").unwrap();
        let name = name
            .split(|c: char| c != '_' && !c.is_alphanumeric())
            .next()
            .unwrap();
        let name = name.trim_end_matches("_bucket");
        let labels = labels
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not documented"));
        let mut used: BTreeSet<String> = BTreeSet::new();
        if let Some((_, by)) = expression.split_once("by (") {
            used.extend(by.split_once(')').unwrap().0.split(", ").map(str::to_owned));
        }
        if expression.contains("model=~") {
            used.insert("model".to_owned());
        }
        used.remove("le");
        assert!(used.is_subset(labels), "{expression}");
        let legend = target["legendFormat"].as_str().unwrap();
        for label in legend.split("{{").skip(1) {
            let label = label.split_once("}}").unwrap().0;
            assert!(used.contains(label), "{legend} of {expression}");
        }
        shown.insert(name.to_owned());
    }
    assert!(shown.len() >= 25, "{shown:?}");
}

#[tokio::test]
async fn requests_are_counted_by_what_became_of_them() {
    let server = used().await;
    for (name, count) in [
        (
            r#"requests_total{route="/v1/chat/completions",model="m",outcome="completed",status="200"}"#,
            "1",
        ),
        (
            r#"requests_total{route="/v1/llm/completions-sync",model="m",outcome="completed",status="200"}"#,
            "1",
        ),
        (
            r#"requests_total{route="/v1/llm/completions-sync",model="m",outcome="rate_limited",status="429"}"#,
            "1",
        ),
        // The repetition of a keyed request is answered, but is no request for the model.
        (
            r#"http_responses_total{route="/v1/chat/completions",status="200"}"#,
            "2",
        ),
        (r#"http_responses_total{route="/v1/models",status="401"}"#, "1"),
        (r#"refusals_total{code="rate_limited",policy="two"}"#, "1"),
        (r#"tokens_total{model="m",kind="input"}"#, "6"),
        (r#"tokens_total{model="m",kind="output"}"#, "4"),
        (r#"request_duration_seconds_count{model="m"}"#, "3"),
        (r#"running_requests{model="m"}"#, "0"),
        (r#"waiting_requests{model="m"}"#, "0"),
        ("held_requests", "0"),
        (r#"bookings_total{outcome="made"}"#, "0"),
        ("limiter_shared_rows", "0"),
        (r#"worker_restarts_total{model="m"}"#, "0"),
    ] {
        let found = metric(&server, &format!("llm_engine_{name}")).await;
        assert_eq!(
            found.as_deref(),
            Some(count),
            "{name}\n{}",
            metrics(&server).await
        );
    }
}

#[tokio::test]
async fn failures_of_a_deployment_are_counted_by_kind() {
    // A port at which nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Server::start(&format!("http://{free}/v1"), "").await;
    let answer = Answer::read(server.post("/v1/chat/completions", &chat()).await).await;
    assert_eq!(answer.status, 502);
    let name = r#"llm_engine_upstream_failures_total{model="m",kind="unreachable"}"#;
    assert_eq!(metric(&server, name).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn neither_a_key_nor_what_a_request_says_becomes_a_label() {
    let server = Server::with_config(&config(&quick().await, "")).await;
    let secret = "sk-secret-7c1f";
    let authorization = format!("Bearer {secret}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let body =
        json!({ "model": secret, "messages": [{ "role": "user", "content": secret }], "user": secret });
    let targets = [
        "/v1/chat/completions",
        "/v1/models/sk-secret-7c1f",
        "/sk-secret-7c1f",
    ];
    for target in targets {
        server
            .send("POST", target, &headers, Some(&body.to_string()))
            .await;
        let own = [("authorization", "Bearer k")];
        server.send("GET", target, &own, None).await;
    }
    assert!(!metrics(&server).await.contains(secret));
}
