use anyhow::Context as _;
use llm_engine_client::Call;
use serde_json::Value;

use super::server;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The request's id, from its answer's `x-request-id` header or body.
    request_id: String,
    /// The server.
    #[arg(long, env = "LLM_ENGINE_BASE_PATH", default_value = "http://127.0.0.1:5000")]
    url: String,
    /// The API key that the request was sent with, or an operator's.
    #[arg(long, env = "SCALE_API_KEY", default_value = "root", hide_env_values = true)]
    key: String,
    /// Print JSON instead of words.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  llm-engine explain 2f1c0f7e-5c1b-4f0a-9c36-0d6b0a4f8a11
  llm-engine explain --json 2f1c0f7e-5c1b-4f0a-9c36-0d6b0a4f8a11";

/// Asks and prints.
#[expect(clippy::print_stdout, reason = "the explanation is what the command is for")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments {
        request_id,
        url,
        key,
        json,
    } = arguments;
    let client = server::client(url, key)?;
    let call = Call::get("/v1/limits/explain")
        .segment(request_id)
        .max_attempts(1);
    let answer = server::block_on(async { client.call(call).await.map_err(server::failed) })?;
    let explanation: Value = serde_json::from_slice(&answer.body).context("the answer is no JSON")?;
    match explanation["explanation"].as_str() {
        Some(words) if !json => print!("{words}"),
        _ => println!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(())
}
