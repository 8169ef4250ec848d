use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use llm_engine_wire::sse::Decoder;
use llm_engine_wire::v1::Frame;
use serde_json::json;

use super::{Usage, http};

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
    /// Print the whole answer as JSON instead of its text as it comes.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  llm-engine complete \"Why is the sky blue?\"
  llm-engine complete --json --max-new-tokens 20 \"Hello\"
  echo \"Summarise: …\" | llm-engine complete -";

/// Asks and prints.
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let response = ask(arguments, &prompt).await?;
        if !response.status().is_success() {
            return Err(http::refused(response).await);
        }
        if arguments.json {
            print_json(response).await
        } else {
            print_text(response).await
        }
    })
}

async fn ask(arguments: &Arguments, prompt: &str) -> anyhow::Result<Response<Incoming>> {
    let Arguments {
        url,
        key,
        model,
        max_new_tokens,
        temperature,
        json,
        ..
    } = arguments;
    let base = url.trim_end_matches('/');
    let route = if *json {
        "completions-sync"
    } else {
        "completions-stream"
    };
    let name: String = http::percent_encoded(model);
    let body = json!({ "prompt": prompt, "max_new_tokens": max_new_tokens, "temperature": temperature });
    let request = Request::post(format!("{base}/v1/llm/{route}?model_endpoint_name={name}"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| Usage(format!("--url {url}: {error}")))?;
    http::send(request, base).await
}

#[expect(clippy::print_stdout, reason = "the answer is what the command is for")]
async fn print_json(response: Response<Incoming>) -> anyhow::Result<()> {
    let answer = http::body(response).await?;
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

async fn print_text(response: Response<Incoming>) -> anyhow::Result<()> {
    let mut body = response.into_body();
    let mut decoder = Decoder::default();
    let mut output = std::io::stdout().lock();
    loop {
        while let Some(event) = decoder.next_event()? {
            let frame: Frame =
                serde_json::from_slice(&event).context("an event of the answer is no frame")?;
            if let Some(error) = frame.error {
                bail!("{} {}", error.status_code, error.content.error);
            }
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
        let Some(frame) = body.frame().await else {
            bail!("the answer broke off")
        };
        if let Ok(bytes) = frame.context("the answer broke off")?.into_data() {
            decoder.push(&bytes);
        }
    }
}
