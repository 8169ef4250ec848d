mod load;
mod log;
mod notes;
mod overload;
mod plot;
mod settings;
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
use overload::Overload;

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
    /// Models that are full, instead of policies: "load=1,2,10 base=700ms"; see below.
    #[arg(long, value_name = "SETTINGS", conflicts_with_all = ["config", "log", "load", "start"])]
    overload: Option<String>,
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

An overload: the server's admission in front of a model of an engine that batches continuously. Words name=value:
  load=1,2,10            what is offered, in multiples of the rate
  rate=8.8/s             about what the engine can take of these requests
  callers=2 first=1      so many callers; the first sends so many times as much as each other
  input=500 output=250   mean tokens of prompts and of answers; their logarithms are normally distributed
  kv=50000               tokens that fit in the engine's memory
  base=0s spread=0       what each request takes before the engine has it; the deviation of its logarithm
  slower=5               the engine is so many times slower for 20 s, a third into the time; or
  halved=true            has half of its capacity for the middle third
  retries=0 obedient=1   how often clients come again; the part of them that comes when it is told to
  gateways=1             the parts of the load of several gateways, such as 7,2,1
  limit=adaptive         or a fixed one; or sweep: the adaptive one beside the best fixed one
  most=N                 the operator's maximum
  wait=2s                the longest wait in the queue, by estimate
  for=240s warm_up=60s   how long it takes, and what is not counted of it
  seeds=5                how often it is repeated, with --seed and those after it
An answer is good whose first token comes within 5 s beyond the base, and each further one within 0.1 s.

In the table, waits count from a request's first call to its admission, 0 where that call was admitted. A quota's share is
what was settled, of all that it could have admitted in the time to its keys together; its peak is the fullest that the
bucket of any key was. A booked time is claimed where the simulation decides who comes: by held requests and retry=told.

Examples:
  llm-engine simulate --config new.toml --log requests.jsonl
  llm-engine simulate --config new.toml --log monday.jsonl --log tuesday.jsonl --plot days.svg
  llm-engine simulate --config new.toml --load \"callers=100 rate=10/s for=10m\" --load \"requests=500 after=5m\"
  llm-engine simulate --load \"requests=200 retry=tenacity\" --json -
  llm-engine simulate --overload \"load=0.9 slower=5 retries=3 for=400s\" --plot slower.svg";

/// Where a simulation without a log begins: a Monday, and the first of a month.
const START: Timestamp = Timestamp::constant(1_704_067_200, 0);

/// Simulates and says what came of it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(text) = &arguments.overload {
        return run_overload(text, arguments);
    }
    let Arguments {
        config,
        log,
        load,
        overload: _,
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
    check_plot(plot.as_deref())?;
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
    let outputs = Outputs {
        json: || with_notes(report.to_json(), &notes),
        svg: || plot::svg(&report),
        table: || table::of(&report, &notes),
    };
    write(outputs, json.as_deref(), plot.as_deref())
}

/// The same for models that are full.
fn run_overload(text: &str, arguments: &Arguments) -> anyhow::Result<()> {
    check_plot(arguments.plot.as_deref())?;
    let overload = Overload::parse(text, arguments.seed)
        .map_err(|error| Usage(format!("--overload \"{text}\": {error}")))?;
    let report = overload::Report::of(&overload);
    let outputs = Outputs {
        json: || report.to_json(),
        svg: || report.svg(),
        table: || report.table(),
    };
    write(outputs, arguments.json.as_deref(), arguments.plot.as_deref())
}

fn check_plot(plot: Option<&Path>) -> Result<(), Usage> {
    match plot {
        Some(path) if path.extension().is_none_or(|is| is != "svg") => Err(Usage(format!(
            "--plot {}: plots are SVG; name a file that ends in .svg",
            path.display()
        ))),
        _ => Ok(()),
    }
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

/// A report in each of its forms.
struct Outputs<J, S, T> {
    json: J,
    svg: S,
    table: T,
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn write(
    outputs: Outputs<impl Fn() -> Value, impl Fn() -> Result<String, plot::PlotError>, impl Fn() -> String>,
    json: Option<&Path>,
    plot: Option<&Path>,
) -> anyhow::Result<()> {
    let to_standard_output = json.is_some_and(|path| path == Path::new("-"));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&(outputs.json)())?;
        if to_standard_output {
            println!("{text}");
        } else {
            std::fs::write(path, text + "\n").with_context(|| format!("--json {}", path.display()))?;
        }
    }
    if let Some(path) = plot {
        let svg = (outputs.svg)().context("the plot can't be drawn")?;
        std::fs::write(path, svg).with_context(|| format!("--plot {}", path.display()))?;
    }
    if !to_standard_output {
        print!("{}", (outputs.table)());
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
