//! Where traces go that the configuration asks for, as the environment says.

use std::time::Duration;

use scripted_upstream::Collector;

use crate::client::prompt;
use crate::server::{Options, Server, Turn, signal};
use crate::upstream::{answer_at_once, deployed_model};

/// One request of a server with an empty section `telemetry`, which then ends.
async fn serve_one(environment: &[(&str, &str)]) -> Server {
    let turn = Turn::take();
    let sections = format!("{}[telemetry]\n", deployed_model(answer_at_once));
    let options = Options {
        arguments: &[],
        environment,
    };
    let server = Server::start_with(&turn, &sections, options);
    server.complete(&prompt("p", 1)).await.text();
    signal(server.process(), "TERM");
    server
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_the_configuration_leaves_open_the_environment_says() {
    let mut collector = Collector::start().await;
    let url = collector.url().to_owned();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=a%20b"),
        ("OTEL_SERVICE_NAME", "front"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
    ];
    let mut server = serve_one(&environment).await;
    let export = collector.next().await;
    assert_eq!(export.headers["x-collector-key"], "a b");
    assert_eq!(export.resource["service.name"], "front");
    assert_eq!(export.resource["deployment.environment.name"], "test");
    assert_eq!(export.take().len(), 2);
    assert_eq!(server.ended(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn the_environment_can_say_that_nothing_is_traced() {
    let mut collector = Collector::start().await;
    let url = collector.url().to_owned();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_SDK_DISABLED", "true"),
    ];
    let mut server = serve_one(&environment).await;
    assert_eq!(server.ended(PATIENCE).await.code(), Some(0));
    assert!(collector.arrived().is_none());
}
