//! What the gateway is measured with and against. `scripts/bench_gateway.py` starts these and all else.

mod bare_proxy;
mod streams;
mod upstream;

use clap::Parser;

/// Each prints the address that it listens on, or what it has measured.
#[derive(Debug, Parser)]
enum Part {
    /// An OpenAI-compatible server that has every answer ready.
    Upstream(upstream::Arguments),
    /// The least that a proxy of this stack can do: axum in front, hyper-util's client behind, nothing between.
    BareProxy(bare_proxy::Arguments),
    /// Callers that read streams, and how long each waited for its first chunk.
    Streams(streams::Arguments),
}

fn main() -> anyhow::Result<()> {
    let part = Part::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match part {
            Part::Upstream(arguments) => upstream::run(&arguments).await,
            Part::BareProxy(arguments) => bare_proxy::run(&arguments).await,
            Part::Streams(arguments) => streams::run(&arguments).await,
        }
    })
}

/// Listens on this machine only; the first line of the output is the address.
#[expect(clippy::print_stdout, reason = "whoever started this waits for the address")]
async fn listener() -> anyhow::Result<tokio::net::TcpListener> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}
