use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::http::uri::Authority;
use bytes::Bytes;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// What `streams` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to send the requests, as `127.0.0.1:8000`.
    server: Authority,
    /// The path of the route.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// The API key.
    #[arg(long)]
    api_key: String,
    /// The body of each request.
    #[arg(long)]
    body: String,
    /// How many callers there are, each with a connection of its own.
    #[arg(long)]
    callers: u64,
    /// For how many seconds they begin streams.
    #[arg(long)]
    seconds: f64,
}

/// Callers that read one stream after the other; prints as JSON how many streams there were and the first chunk's delays in
/// microseconds.
#[expect(clippy::print_stdout, reason = "what was measured is the output")]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let callers = (0..arguments.callers).map(|index| async move {
        // So that they don't go in step.
        sleep(Duration::from_micros(index * 1_731)).await;
        call(arguments, until).await
    });
    let mut delays = Histogram::<u64>::new(3)?;
    for of_caller in try_join_all(callers).await? {
        delays.add(of_caller)?;
    }
    ensure!(!delays.is_empty(), "no stream was read");
    let (median, p99) = (delays.value_at_quantile(0.5), delays.value_at_quantile(0.99));
    println!(
        "{}",
        json!({ "streams": delays.len(), "median_us": median, "p99_us": p99 })
    );
    Ok(())
}

/// In microseconds.
async fn call(arguments: &Arguments, until: Instant) -> anyhow::Result<Histogram<u64>> {
    let connection = TcpStream::connect(arguments.server.as_str()).await?;
    connection.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(connection);
    let body = Bytes::from(arguments.body.clone());
    let mut delays = Histogram::new(3)?;
    while Instant::now() < until {
        sender.ready().await?;
        let request = Request::post(&arguments.path)
            .header(HOST, arguments.server.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", arguments.api_key))
            .body(Full::new(body.clone()))?;
        let begun = Instant::now();
        let response = sender.send_request(request).await?;
        ensure!(
            response.status() == StatusCode::OK,
            "the answer is {}",
            response.status()
        );
        let mut body = response.into_body();
        body.frame().await.context("an empty stream")??;
        delays.record(u64::try_from(begun.elapsed().as_micros())?)?;
        while let Some(frame) = body.frame().await {
            frame?;
        }
    }
    Ok(delays)
}
