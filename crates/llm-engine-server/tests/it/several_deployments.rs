//! Models with several deployments, and models that stand in for others: what the configuration says, and what a caller sees.

use std::path::Path;
use std::time::Duration;

use llm_engine_server::config::{Config, Runner};
use scripted_upstream::{Upstream, freeze};
use serde_json::json;
use tokio::time::advance;

use crate::harness::{Answer, CALLERS, Server, chat, quick};

fn told(text: &str) -> Vec<String> {
    let error = Config::parse(text, Path::new("engine.toml")).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn each_deployment_has_its_own_settings_and_http_is_adaptive() {
    let text = "[models.m]\ndeployments = [\n\
                { url = 'http://a/v1', model = 'x', requests = { limit = 5, window = '1m' } },\n\
                { url = 'https://b/v1', model = 'y', concurrency = 3 },\n\
                { url = 'https://c/v1', model = 'z', admission = 'adaptive', metrics = 'https://c/metrics' },\n]\n";
    let config = Config::parse(text, Path::new("engine.toml")).unwrap();
    let Runner::Remote(remotes) = &config.models[0].runner else {
        panic!("they are remote")
    };
    let adaptive: Vec<bool> = remotes.iter().map(|remote| remote.is_adaptive).collect();
    assert_eq!(adaptive, [true, false, true]);
    let limits: Vec<Option<&str>> = remotes
        .iter()
        .map(|remote| remote.limits.as_ref().map(|limits| limits.name.as_str()))
        .collect();
    assert_eq!(limits, [Some("m.deployment-1"), Some("m.deployment-2"), None]);
    assert!(config.policies.is_empty(), "they are no policies of the model");
}

#[test]
fn what_can_not_be_is_told_with_its_place() {
    let two = |more: &str| {
        format!(
            "[models.m]\ndeployments = [{{ url = 'http://a/v1', model = 'x' }}, {{ url = 'http://b/v1', model = 'x', \
             concurrency = 1{more} }}]\n"
        )
    };
    let [hold] = told(&two(", hold = '5s'")).try_into().unwrap();
    assert!(
        hold.starts_with("engine.toml:2:") && hold.contains("several deployments"),
        "{hold}"
    );
    let [admission] = told(&format!("{}admission = 'off'\n", two("")))
        .try_into()
        .unwrap();
    assert!(
        admission.starts_with("engine.toml:3:13: admission belongs to each"),
        "{admission}"
    );
    let [itself] = told(&format!("{}fallbacks = ['m']\n", two("")))
        .try_into()
        .unwrap();
    assert!(
        itself.starts_with("engine.toml:3:14: 'm' is the model itself"),
        "{itself}"
    );
    let other = "[models.small]\ngguf = 'x'\n";
    let [unknown] = told(&format!("{}fallbacks = ['smal']\n{other}", two("")))
        .try_into()
        .unwrap();
    assert_eq!(
        unknown,
        "engine.toml:3:14: there is no model 'smal'; did you mean 'small'?"
    );
}

#[tokio::test]
async fn a_model_that_fails_is_answered_for_by_another_whose_name_the_answer_has() {
    let broken = Upstream::answering(|exchange| exchange.answer(500, &[], json!({}))).await;
    let well = quick().await;
    let model = |name: &str, url: &str, more: &str| {
        format!(
            "[models.{name}]\ndeployments = [{{ url = '{url}', model = 'x', admission = 'off' }}]\n{more}\n"
        )
    };
    let models = [
        model("m", &broken, "fallbacks = ['small']"),
        model("small", &well, ""),
    ]
    .concat();
    let server = Server::with_config(&format!("listen = '127.0.0.1:0'\n{models}{CALLERS}")).await;
    let mut body = chat();
    body["stream"] = true.into();
    let answer = Answer::read(server.post("/v1/chat/completions", &body).await).await;
    assert_eq!(answer.status, 200);
    let first: serde_json::Value = serde_json::from_str(answer.events()[0]).unwrap();
    assert_eq!(first["model"], "small");
}

#[tokio::test]
async fn a_caller_s_deadline_ends_the_waiting_for_its_answer() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let headers = [("x-request-timeout-ms", "1500")];
    let body = chat();
    let (answer, ()) = tokio::join!(server.post_with(&headers, "/v1/chat/completions", &body), async {
        let exchange = upstream.next().await;
        assert_eq!(exchange.headers["x-request-timeout-ms"], "1500");
        advance(Duration::from_millis(1_501)).await;
        server.settle().await;
        drop(exchange);
    });
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json()["error"]["code"], "upstream_timeout");
}
