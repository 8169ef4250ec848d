use std::io::{IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use llm_engine_client::{Backoff, Call, Client, Retry, Stop, Waiting};
use llm_engine_wire::v1::Frame;
use serde_json::{Value, json};

use super::server;

/// What `complete` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The prompt; `-` reads it from standard input.
    prompt: String,
    /// The server.
    #[arg(long, env = "LLM_ENGINE_BASE_PATH", default_value = "http://127.0.0.1:5000")]
    url: String,
    /// The API key.
    #[arg(long, env = "SCALE_API_KEY", default_value = "root", hide_env_values = true)]
    key: String,
    /// The model.
    #[arg(long, default_value = "llama-7b")]
    model: String,
    /// The most tokens to generate.
    #[arg(long, default_value_t = 256)]
    max_new_tokens: u32,
    /// 0 (always the likeliest token) to 1.
    #[arg(long, default_value_t = 0.2)]
    temperature: f64,
    /// How often to try again when the server refuses or fails.
    #[arg(long, default_value_t = 5)]
    max_retries: u32,
    /// Print the whole answer as JSON instead of its text as it comes.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  llm-engine complete \"Why is the sky blue?\"
  llm-engine complete --json --max-new-tokens 20 \"Hello\"
  echo \"Summarise: …\" | llm-engine complete -";

/// Asks and prints. A call that is interrupted is cancelled at the server as well.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let prompt = match arguments.prompt.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("the prompt on standard input")?;
            text
        }
        prompt => prompt.to_owned(),
    };
    let client = server::client(&arguments.url, &arguments.key)?;
    server::block_on(async {
        let done = tokio::select! {
            done = ask(&client, arguments, &prompt) => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(anyhow::anyhow!("interrupted"))
            }
        };
        client.cancelled().await;
        done
    })
}

async fn ask(client: &Client, arguments: &Arguments, prompt: &str) -> anyhow::Result<()> {
    let Arguments {
        model,
        max_new_tokens,
        temperature,
        max_retries,
        json,
        ..
    } = arguments;
    let route = if *json {
        "completions-sync"
    } else {
        "completions-stream"
    };
    let body = json!({ "prompt": prompt, "max_new_tokens": max_new_tokens, "temperature": temperature });
    let call = Call::post(format!("/v1/llm/{route}"), body.to_string())
        .query("model_endpoint_name", model)
        .model(model)
        .retry(Retry::new(
            Backoff::default(),
            Stop::after_attempts(max_retries.saturating_add(1)),
        ))
        .on_wait(Arc::new(announce));
    if *json {
        print_json(client, call).await
    } else {
        print_text(client, call).await
    }
}

/// What takes so long.
fn announce(waiting: &Waiting<'_>) {
    let seconds = waiting.wait.as_secs_f64();
    match waiting.policy {
        Some(policy) => eprintln!("limited by policy {policy}, next try in {seconds:.1} s"),
        None => {
            let message = server::without_full_stop(waiting.message);
            eprintln!("{message}, next try in {seconds:.1} s");
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer is what the command is for")]
async fn print_json(client: &Client, call: Call) -> anyhow::Result<()> {
    let answer = client.call(call).await.map_err(server::failed)?;
    let answer: Value = serde_json::from_slice(&answer.body).context("the answer is no JSON")?;
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

async fn print_text(client: &Client, call: Call) -> anyhow::Result<()> {
    let mut events = client.stream(call).await.map_err(server::failed)?;
    let mut output = std::io::stdout().lock();
    while let Some(event) = events.next().await {
        let event = event.map_err(server::failed)?;
        let frame: Frame = serde_json::from_slice(&event).context("an event of the answer is no frame")?;
        let Some(added) = frame.output else { continue };
        output.write_all(added.text.as_bytes())?;
        output.flush()?;
        if added.finished {
            if output.is_terminal() {
                output.write_all(b"\n")?;
            }
            return Ok(());
        }
    }
    bail!("the answer broke off")
}
