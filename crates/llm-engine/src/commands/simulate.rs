mod load;
mod log;
mod notes;
mod plot;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use llm_engine_gateway::{
    Fingerprint, Retry, SimulatedModel, SimulatedRequest, Simulation, SimulationReport, SimulationSetup,
    Tokens,
};
use serde_json::Value;

use super::{Usage, read_config};
use load::{Load, LoadRequests};
use log::{Log, LogRequests};

/// What `simulate` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The configuration with the policies to try. Without it: llm-engine.toml here if there is one, else the built-in
    /// configuration.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The log of a server, one JSON object a line (`serve --log-format json`). Give the files of one log in the order of
    /// their time.
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Requests made up: "callers=100 rate=10/s for=10m"; see below.
    #[arg(long, value_name = "SETTINGS")]
    load: Vec<String>,
    /// What the clients of a log do when they are refused, beyond what the log has of them.
    #[arg(long, value_enum, default_value_t = LogRetry::None)]
    retry: LogRetry,
    /// When it begins, by which calendar windows begin. Default: with the log; without one, 2024-01-01T00:00:00Z, the first
    /// moment of a week, a month and a year.
    #[arg(long, value_name = "TIMESTAMP")]
    start: Option<Timestamp>,
    /// Of all that is random: the same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report as JSON to a file; `-`: to standard output, instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what was admitted, held and refused over time, and how full each quota was. SVG only: FILE.svg.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What the clients of a log do when they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogRetry {
    /// Only what the log has of them: retries are requests of their own there.
    None,
    /// They also come back when they are told to. For a log in which few were refused: retries that it has come as well.
    Told,
}

const HELP: &str = "\
What would these policies have done to yesterday's requests? The limiter of the server runs in virtual time: a day takes
seconds. Models are not simulated: each admitted request runs at once and as long as it did, or is said to.

A log. Each record of a request (target llm_engine::request) comes at its time less its duration; other lines are
skipped and counted. What was admitted then uses what it used then. Of what was refused then nobody knows what it would
have used: it uses what the latest answered request for the same model did, at most what it asked for; until there is
one, all that it asked for, in no time. What failed for want of a model (saturated, no_deployment, draining) uses nothing.
A retry is recognised by its caller, its model and the tokens it asks for. The files are read twice, first for how far
records are out of order; memory holds only the requests that were running at a time. Addresses and users are not in the
log: all requests come from one address, and policies per user apply to none.

A load: words name=value, with these defaults.
  callers=1              so many callers, load-1, load-2 and so on, who are teams of their own
  caller=NAME            one caller, such as one of the configuration, instead
  rate=10/s for=1m       Poisson arrivals of all callers together (/s, /m or /h), for so long; or
  requests=N             so many at once, instead of both
  after=0s               when it begins
  model=NAME             default: the first model of the configuration
  route=/v1/chat/completions
  input=500 output=250   mean tokens of prompts and of answers; each is exponential, at least 1
  max_output=512         what a request asks for at most; longer answers are cut off
  speed=50               output tokens per second, by which a request runs as long as it does
  retry=told             told: comes back when it is told to, up to 20 ms later; tenacity: at random, exponential
                         between 1 s and 60 s, whatever it is told; none
  attempts=6             calls of one request at most

In the table, waits count from a request's first call to its admission, 0 where that call was admitted. A quota's share is
what was settled, of all that it could have admitted in the time to its keys together; its peak is the fullest that the
bucket of any key was. A booked time is claimed where the simulation decides who comes: by held requests and retry=told.

Examples:
  llm-engine simulate --config new.toml --log requests.jsonl
  llm-engine simulate --config new.toml --log monday.jsonl --log tuesday.jsonl --plot days.svg
  llm-engine simulate --config new.toml --load \"callers=100 rate=10/s for=10m\" --load \"requests=500 after=5m\"
  llm-engine simulate --load \"requests=200 retry=tenacity\" --json -";

/// Where a simulation without a log begins: a Monday, and the first of a month.
const START: Timestamp = Timestamp::constant(1_704_067_200, 0);

/// Simulates and says what came of it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments {
        config,
        log,
        load,
        retry,
        start,
        seed,
        json,
        plot,
    } = arguments;
    let config = read_config(config.as_deref())?;
    if log.is_empty() && load.is_empty() {
        return Err(Usage(
            "nothing to simulate: name a log with --log FILE, or say --load \"rate=10/s for=1m\"".into(),
        )
        .into());
    }
    if let Some(path) = plot
        .as_deref()
        .filter(|path| path.extension().is_none_or(|is| is != "svg"))
    {
        return Err(Usage(format!(
            "--plot {}: plots are SVG; name a file that ends in .svg",
            path.display()
        ))
        .into());
    }
    let loads: Vec<Load> = load
        .iter()
        .map(|text| {
            Load::parse(text, &config.models).map_err(|error| Usage(format!("--load \"{text}\": {error}")))
        })
        .collect::<Result<_, _>>()?;
    let log = Log::survey(log)?;
    if let (Some(start), Some(first)) = (start, log.start)
        && *start > first
    {
        let message = format!(
            "--start {start}: the first request of the log began before that, at {first}; begin no later"
        );
        return Err(Usage(message).into());
    }
    let start = start.or(log.start).unwrap_or(START);
    let policies = config.policies.clone();
    let models = config.models.iter().map(|model| SimulatedModel {
        name: model.name.clone(),
        aliases: model.aliases.clone(),
        price: model.price,
    });
    let setup = SimulationSetup {
        models: models.collect(),
        callers: config.callers,
        policies: config.policies,
        start,
        seed: *seed,
    };
    let simulation = Simulation::new(setup).map_err(|error| Usage(error.to_string()))?;
    let retry = match retry {
        LogRetry::None => Retry::Never,
        LogRetry::Told => Retry::Told,
    };
    let report = simulate(simulation, &log, retry, &loads, start, *seed)?;
    let notes = notes::of(&report, &log, &policies);
    write(&report, &notes, json.as_deref(), plot.as_deref())
}

/// Lets all requests arrive in the order of their times.
fn simulate(
    mut simulation: Simulation,
    log: &Log,
    retry: Retry,
    loads: &[Load],
    start: Timestamp,
    seed: u64,
) -> anyhow::Result<SimulationReport> {
    let mut logged = LogRequests::of(log, retry).peekable();
    let mut made_up: Vec<_> = (0..)
        .zip(loads)
        .map(|(number, load)| LoadRequests::new(load, number, start, seed).peekable())
        .collect();
    loop {
        let earliest = made_up
            .iter_mut()
            .filter_map(|requests| Some((requests.peek()?.at, requests)))
            .min_by_key(|(at, _)| *at);
        let logged_at = match logged.peek() {
            Some(Ok(request)) => Some(request.at),
            // It is told as soon as it is met.
            Some(Err(_)) => Some(Timestamp::MIN),
            None => None,
        };
        let request = match (logged_at, earliest) {
            (Some(logged_at), Some((at, requests))) if at < logged_at => requests.next(),
            (Some(_), _) => logged.next().transpose()?,
            (None, Some((_, requests))) => requests.next(),
            (None, None) => break,
        };
        if let Some(request) = request {
            simulation.offer(request.at, &request.simulated());
        }
    }
    Ok(simulation.finish())
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn write(
    report: &SimulationReport,
    notes: &[String],
    json: Option<&Path>,
    plot: Option<&Path>,
) -> anyhow::Result<()> {
    let to_standard_output = json.is_some_and(|path| path == Path::new("-"));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&with_notes(report.to_json(), notes))?;
        if to_standard_output {
            println!("{text}");
        } else {
            std::fs::write(path, text + "\n").with_context(|| format!("--json {}", path.display()))?;
        }
    }
    if let Some(path) = plot {
        let svg = plot::svg(report).context("the plot can't be drawn")?;
        std::fs::write(path, svg).with_context(|| format!("--plot {}", path.display()))?;
    }
    if !to_standard_output {
        print!("{}", table::of(report, notes));
    }
    Ok(())
}

fn with_notes(mut report: Value, notes: &[String]) -> Value {
    report["notes"] = notes.into();
    report
}

/// A request of a log or of a load.
#[derive(Debug, Clone)]
struct Request {
    at: Timestamp,
    caller: String,
    model: String,
    route: String,
    asked: Tokens,
    used: Option<Tokens>,
    lasts: Duration,
    fingerprint: Fingerprint,
    retry: Retry,
    attempts: u32,
}

impl Request {
    fn simulated(&self) -> SimulatedRequest<'_> {
        let Self {
            at: _,
            caller,
            model,
            route,
            asked,
            used,
            lasts,
            fingerprint,
            retry,
            attempts,
        } = self;
        SimulatedRequest {
            caller,
            model,
            route,
            asked: *asked,
            used: *used,
            lasts: *lasts,
            fingerprint: *fingerprint,
            retry: *retry,
            attempts: *attempts,
        }
    }
}
