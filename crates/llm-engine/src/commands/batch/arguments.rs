use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use llm_engine_batch::{Form, Format, Input, Most, Order};
use llm_engine_client::Client;
use llm_engine_client::batch::{Dialect, Prices, Sender};
use serde_json::{Map, Value};

use super::super::Usage;
use super::{schema, usage};

/// What `batch run` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The rows: JSON lines with a `prompt` or `messages` each, and an `id` if you like; OpenAI's batch lines; or CSV.
    pub(super) input: PathBuf,
    /// Where the answers go: CSV if the name ends so, else JSON lines, of OpenAI's form if the rows are. Beside it is the journal
    /// of the run, which is gone on with when the same command is given again.
    #[arg(long, required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// The LLM Engine server.
    #[arg(long, env = "LLM_ENGINE_BASE_PATH", default_value = "http://127.0.0.1:5000")]
    url: String,
    /// Any OpenAI-compatible server instead, such as `https://api.openai.com/v1`.
    #[arg(long)]
    base_url: Option<String>,
    /// The environment variables with the API keys, separated by commas; all of them are used at once. By default
    /// `SCALE_API_KEY`, with `--base-url` `OPENAI_API_KEY`.
    #[arg(long, value_delimiter = ',')]
    key_env: Vec<String>,
    /// The model of rows that name none.
    #[arg(long)]
    model: Option<String>,
    /// The most tokens to generate for rows that don't say so.
    #[arg(long)]
    max_new_tokens: Option<u64>,
    /// The temperature of rows that have none.
    #[arg(long)]
    temperature: Option<f64>,
    /// Rows in the order of the input, instead of that in which they were done.
    #[arg(long)]
    ordered: bool,
    /// The most rows on their way. They are fewer wherever the server wants it so.
    #[arg(long, default_value = "256")]
    pub(super) concurrency: NonZeroUsize,
    /// How often a row is tried that fails while others are answered. Refusals don't count.
    #[arg(long, default_value = "6")]
    pub(super) max_attempts: NonZeroU32,
    /// For how long it is waited for a server that answers nothing.
    #[arg(long, default_value = "1h")]
    pub(super) patience: humantime::Duration,
    /// Only say how much there is to do, and what it may cost.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Only so many rows, evenly spread; their answers are printed, and kept.
    #[arg(long)]
    pub(super) sample: Option<u64>,
    /// Go on with a run that was begun: it is an error if there is none. Without this it is begun or gone on with.
    #[arg(long)]
    pub(super) resume: bool,
    /// Try the rows again that ended with an error.
    #[arg(long, conflicts_with = "sample")]
    pub(super) retry_failed: bool,
    /// Stop before the answers cost more; needs the prices.
    #[arg(long, requires = "output_usd_per_million")]
    max_usd: Option<f64>,
    /// Stop before prompts and answers together have more tokens.
    #[arg(long)]
    max_tokens: Option<u64>,
    /// The price of a million tokens of prompts.
    #[arg(long, requires = "output_usd_per_million")]
    input_usd_per_million: Option<f64>,
    /// The price of a million tokens that are generated.
    #[arg(long, requires = "input_usd_per_million")]
    output_usd_per_million: Option<f64>,
    /// Stop after this time, such as `8h`.
    #[arg(long)]
    pub(super) deadline: Option<humantime::Duration>,
    /// A JSON schema that each answer's text has to fit. One that does not is asked for again, as often as `--max-attempts` says.
    #[arg(long)]
    validate: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  llm-engine batch run prompts.jsonl --out answers.jsonl --model llama-7b --max-new-tokens 100 --temperature 0
  llm-engine batch run prompts.csv --out answers.csv --model llama-7b --ordered
  llm-engine batch run batch.jsonl --out answers.jsonl --base-url https://api.openai.com/v1

What is interrupted, in whatever way, is gone on with by the same command. Exit codes: 0 complete; 3 complete, with rows
that have an error; 4 incomplete; 2 nothing was begun.";

/// What is to be done, checked.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) form: Form,
    pub(super) sender: Sender,
    pub(super) senders: usize,
    pub(super) most: Most,
    pub(super) prices: Prices,
    /// Whom to ask what the limits are, if it has that.
    pub(super) limits: Option<Client>,
    pub(super) defaults: Map<String, Value>,
}

impl Arguments {
    pub(super) fn out(&self) -> anyhow::Result<&Path> {
        self.out.as_deref().ok_or_else(|| usage("--out is missing"))
    }

    pub(super) fn order(&self) -> Order {
        if self.ordered {
            Order::Input
        } else {
            Order::Completion
        }
    }

    pub(super) fn check(&self) -> anyhow::Result<Job> {
        let input = Input::new(&self.input, Format::of(&self.input));
        let out = self.out.as_deref().unwrap_or(Path::new(""));
        let form =
            Form::of(out, &input).map_err(|error| usage(format!("{}: {error}", self.input.display())))?;
        let mut defaults = Map::new();
        let given = [
            ("model", self.model.clone().map(Value::from)),
            ("max_new_tokens", self.max_new_tokens.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                defaults.insert(name.to_owned(), value);
            }
        }
        let (url, dialect) = self.server();
        let keys = self.keys()?;
        let clients = keys.iter().map(|key| {
            let client = Client::builder(&url);
            match key {
                Some(key) => client.api_key(key),
                None => client,
            }
        });
        let wrong = |error| usage(format!("--url, --base-url or --key-env: {error}"));
        let prices = self.prices()?;
        let mut sender = Sender::new(clients, dialect, defaults.clone(), form)
            .map_err(wrong)?
            .prices(prices);
        if let Some(path) = &self.validate {
            sender = sender.check(schema::check(path)?);
        }
        let limits = match (dialect, keys.first()) {
            (Dialect::LlmEngine, Some(Some(key))) => Some(Client::new(&url, key).map_err(wrong)?),
            _ => None,
        };
        let most = Most {
            tokens: self.max_tokens,
            nano_usd: self.max_usd.map(|usd| nano("--max-usd", usd * 1e9)).transpose()?,
        };
        Ok(Job {
            input,
            form,
            sender,
            senders: keys.len(),
            most,
            prices,
            limits,
            defaults,
        })
    }

    fn server(&self) -> (String, Dialect) {
        let Some(base_url) = &self.base_url else {
            return (self.url.clone(), Dialect::LlmEngine);
        };
        Dialect::openai(base_url)
    }

    /// The API keys. `root` is the one of `make run`.
    fn keys(&self) -> anyhow::Result<Vec<Option<String>>> {
        let key = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
        if self.key_env.is_empty() {
            return Ok(vec![match self.base_url {
                None => Some(key("SCALE_API_KEY").unwrap_or_else(|| "root".to_owned())),
                Some(_) => key("OPENAI_API_KEY"),
            }]);
        }
        let keys = self.key_env.iter().map(|name| match key(name) {
            Some(key) => Ok(Some(key)),
            None => Err(usage(format!("--key-env: there is no key in {name}"))),
        });
        keys.collect()
    }

    fn prices(&self) -> anyhow::Result<Prices> {
        // A dollar per million tokens is a thousand billionths of a dollar per token.
        let price = |name, usd: Option<f64>| nano(name, usd.unwrap_or_default() * 1e3);
        Ok(Prices {
            nano_usd_per_input_token: price("--input-usd-per-million", self.input_usd_per_million)?,
            nano_usd_per_output_token: price("--output-usd-per-million", self.output_usd_per_million)?,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is checked to be in range"
)]
fn nano(name: &str, nano_usd: f64) -> anyhow::Result<u64> {
    if !(0.0..1e18).contains(&nano_usd) {
        return Err(Usage(format!("{name}: it must be an amount of money")).into());
    }
    Ok(nano_usd.round() as u64)
}
