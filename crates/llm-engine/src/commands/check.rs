use std::path::PathBuf;

use llm_engine_server::TelemetrySetup;
use llm_engine_server::config::{Config, ConfigError, Mistake, ModelConfig, Runner};
use llm_engine_server::policy_words::{Explained, explained};
use serde_json::{Value, json};

use crate::model_file::{ModelFile, ModelFileError};

use super::{CONFIG_FILE, Usage};

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration.
    #[arg(default_value = CONFIG_FILE)]
    file: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Print the JSON schema of configurations instead, for editors.
    #[arg(long, conflicts_with_all = ["json", "file"])]
    schema: bool,
}

/// Says whether a configuration is good, and what its policies mean. Nothing is started, fetched or bound.
#[expect(clippy::print_stdout, reason = "what was found out is this command's output")]
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.schema {
        println!("{:#}", Config::schema());
        return Ok(());
    }
    let checked = Config::read(&arguments.file).map_err(|error| ConfigError::mistakes(&error).to_vec());
    let checked = checked.and_then(|config| match wrong_files(&config) {
        mistakes if mistakes.is_empty() => Ok(config),
        mistakes => Err(mistakes),
    });
    let mistakes = match checked {
        Ok(config) => {
            let policies = config.policies.iter().map(explained).collect();
            let summary = Summary { config, policies };
            if arguments.json {
                println!("{:#}", summary.to_json());
            } else {
                println!("{} is good\n\n{}", arguments.file.display(), summary.to_text());
            }
            return Ok(());
        }
        Err(mistakes) => mistakes,
    };
    if arguments.json {
        let mistakes: Vec<Value> = mistakes.iter().map(in_json).collect();
        println!("{:#}", json!({ "good": false, "mistakes": mistakes }));
    }
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    Err(Usage(lines.join("\nerror: ")).into())
}

/// The model files that are named by a path and can't be used. What would be fetched is not looked at.
fn wrong_files(config: &Config) -> Vec<Mistake> {
    let files = config.models.iter().filter_map(|model| match &model.runner {
        Runner::Gguf(gguf) => Some(gguf),
        Runner::Remote(_) => None,
    });
    let mistakes = files.filter_map(|gguf| {
        let file = ModelFile {
            source: &gguf.source,
            sha256: gguf.sha256.as_deref(),
            base: &gguf.base,
        };
        let error: ModelFileError = file.check().err()?;
        Some(Mistake {
            place: gguf.place.clone(),
            message: error.to_string(),
        })
    });
    mistakes.collect()
}

fn in_json(mistake: &Mistake) -> Value {
    let Mistake { place, message } = mistake;
    let (line, column) = place.position.unzip();
    json!({ "file": place.path, "line": line, "column": column, "message": message })
}

struct Summary {
    config: Config,
    policies: Vec<Explained>,
}

impl Summary {
    fn to_json(&self) -> Value {
        let Self { config, policies } = self;
        let models = config.models.iter().map(|model| {
            json!({ "name": model.name, "aliases": model.aliases, "runs": runs(model), "concurrency": model.concurrency })
        });
        let callers = config.callers.iter().map(
            |caller| json!({ "name": caller.name, "team": caller.team, "operator": caller.is_operator }),
        );
        json!({
            "good": true,
            "listen": config.listen.to_string(),
            "development_key": config.development_key,
            "models": models.collect::<Vec<_>>(),
            "callers": callers.collect::<Vec<_>>(),
            "files": {
                "file_bytes": config.files.file_bytes,
                "bytes_per_caller": config.files.bytes_per_caller,
                "files_per_caller": config.files.files_per_caller,
                "keep_seconds": config.files.keep.as_secs(),
            },
            "batches": {
                "rows": config.batches.rows,
                "per_caller": config.batches.per_caller,
                "running_per_caller": config.batches.running_per_caller,
                "keep_seconds": config.batches.keep.as_secs(),
            },
            "telemetry": config.telemetry.as_ref().map(|telemetry| json!({
                "endpoint": telemetry.endpoint,
                "service_name": telemetry.service_name,
                "sampling_ratio": telemetry.sampling_ratio,
                "headers": telemetry.headers.keys().map(ToString::to_string).collect::<Vec<_>>(),
            })),
            "policies": policies,
        })
    }

    fn to_text(&self) -> String {
        let Self { config, policies } = self;
        let mut lines = vec![format!("It listens on {}.", config.listen)];
        lines.extend(config.telemetry.as_ref().map(traces));
        lines.push("\nModels".to_owned());
        lines.extend(config.models.iter().map(|model| {
            let names: Vec<&str> = std::iter::once(&model.name)
                .chain(&model.aliases)
                .map(String::as_str)
                .collect();
            let fallbacks = match &model.fallbacks[..] {
                [] => String::new(),
                fallbacks => format!("; while it can't answer, {} does", fallbacks.join(", then ")),
            };
            format!(
                "  {}: {}; {} at a time, {} more wait for up to about {}{fallbacks}",
                names.join(", "),
                runs(model),
                concurrency(model),
                model.queue_length,
                humantime::format_duration(model.queue_wait)
            )
        }));
        lines.push("\nCallers".to_owned());
        lines.extend(config.callers.iter().map(|caller| {
            let team = caller.team.as_ref().map(|team| format!(", team {team}"));
            let operator = if caller.is_operator {
                ", sees what concerns others"
            } else {
                ""
            };
            format!("  {}{}{operator}", caller.name, team.unwrap_or_default())
        }));
        lines.push("\nFiles and batches of one caller".to_owned());
        lines.extend([files_in_words(config), batches_in_words(config)]);
        lines.push("\nPolicies; a request must be admitted by all that apply to it".to_owned());
        if policies.is_empty() {
            lines.push("  none: 429 comes as needed, when a model is full".to_owned());
        }
        let policies = policies.iter().map(ToString::to_string);
        lines.extend(policies.map(|policy| format!("  {}", policy.replace('\n', "\n  "))));
        lines.join("\n")
    }
}

fn files_in_words(config: &Config) -> String {
    let files = &config.files;
    format!(
        "  up to {} files of up to {} bytes, {} bytes together, for {}",
        files.files_per_caller,
        files.file_bytes,
        files.bytes_per_caller,
        humantime::format_duration(files.keep)
    )
}

fn batches_in_words(config: &Config) -> String {
    let batches = &config.batches;
    format!(
        "  up to {} batches of up to {} rows, {} running at a time, for {} after their end",
        batches.per_caller,
        batches.rows,
        batches.running_per_caller,
        humantime::format_duration(batches.keep)
    )
}

/// Where traces go, and which.
fn traces(telemetry: &TelemetrySetup) -> String {
    let TelemetrySetup {
        endpoint,
        service_name,
        sampling_ratio,
        headers: _,
    } = telemetry;
    let place = match endpoint {
        Some(endpoint) => format!("go to {endpoint}"),
        None => "go where OTEL_EXPORTER_OTLP_ENDPOINT says, by default to http://localhost:4318".to_owned(),
    };
    let name = service_name.as_ref().map(|name| format!(" as {name}"));
    let share = match sampling_ratio {
        Some(ratio) => format!("{} % of those", ratio * 100.0),
        None => "those that OTEL_TRACES_SAMPLER says, by default all,".to_owned(),
    };
    format!(
        "Traces of requests {place}{}: {share} whose caller does not say whether it is recorded.",
        name.unwrap_or_default()
    )
}

/// What runs the model.
fn runs(model: &ModelConfig) -> String {
    match &model.runner {
        Runner::Gguf(gguf) => format!("run here, from {}", gguf.source),
        Runner::Remote(remotes) => {
            let deployments = remotes.iter().map(|remote| {
                let limited = if remote.is_adaptive {
                    ""
                } else {
                    ", which limits itself"
                };
                format!("{} at {}{limited}", remote.model, remote.url)
            });
            deployments.collect::<Vec<_>>().join(" and ")
        }
    }
}

/// How many requests the model runs at a time.
fn concurrency(model: &ModelConfig) -> String {
    let is_adaptive = match &model.runner {
        Runner::Gguf(gguf) => gguf.is_adaptive,
        Runner::Remote(remotes) => remotes.iter().any(|remote| remote.is_adaptive),
    };
    match (model.concurrency, is_adaptive) {
        (Some(most), true) => {
            format!("as many requests as it is found to be able to take, but at most {most},")
        }
        (None, true) => "as many requests as it is found to be able to take".to_owned(),
        (Some(most), false) => format!("{most} requests"),
        (None, false) => "all requests that come".to_owned(),
    }
}
