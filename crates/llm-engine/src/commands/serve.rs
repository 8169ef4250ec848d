use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use llm_engine_server::config::{Config, GgufModel, ModelConfig, Place};
use llm_engine_server::{
    App, Cores, Drained, Gateway, Listening, ProxySetup, Reloader, RouteStatus, Setup, Storage, Tls,
    WorkerSetup, serve,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::logging::{Format, Lines};

use super::{Usage, config_file, locate, read_config, summary};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration. Without it: llm-engine.toml here if there is one, else the built-in configuration.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Serves until SIGTERM or Ctrl-C, then drains.
pub(crate) fn run(arguments: &Arguments, log_format: Format, log: &Lines) -> anyhow::Result<()> {
    let begun = Instant::now();
    let _gathering = log.gather()?;
    let path = config_file(arguments.config.as_deref());
    let config = read_config(path)?;
    let summary = summary::of(&config);
    let started = config.clone();
    let listen_place = config.listen_place.clone();
    // Dropped at the end of this function, which removes the folder.
    let sockets = tempfile::Builder::new().prefix("llm-engine-").tempdir();
    let sockets = sockets.context("no folder for the sockets of the model workers")?;
    allow_descriptors(started.connections);
    let states = state_folder(config.state_folder.clone(), config.listen);
    let (listen, setup) = setup(config, (sockets.path(), states.as_deref()), log_format)?;
    // This thread accepts connections and does what belongs to no request.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let cores = Cores::start(available_parallelism()?)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| cannot_listen(listen, listen_place.as_ref(), &error))?;
        let address = listener.local_addr()?;
        // The address is ours by now, and so is what belongs to it.
        let storage = storage(states, &started)?;
        let gateway = Arc::new(Gateway::start(setup).map_err(|error| Usage(error.to_string()))?);
        tokio::spawn(announce(Arc::clone(&gateway), summary.at(address), begun));
        let listening = Listening {
            tls: started.tls.clone().map(Tls::new),
            connections: started.connections,
        };
        let app = App::new(
            gateway,
            started.trusted_proxies.clone(),
            started.replay,
            listening,
            storage,
        );
        if let Some(path) = path {
            let mut hangups = signal(SignalKind::hangup())?;
            let told = Arc::new(Notify::new());
            tokio::spawn(Reloader::new(app.clone(), path.to_owned(), started).run(Arc::clone(&told)));
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    told.notify_one();
                }
            });
        }
        match serve(listener, app, &cores, ended_by_signal()?).await {
            Drained::Fully => Ok(()),
            Drained::CutOff => {
                anyhow::bail!("some requests were cut off when the time for draining was over")
            }
        }
    })
}

fn setup(
    config: Config,
    (socket_folder, state_folder): (&Path, Option<&Path>),
    log_format: Format,
) -> anyhow::Result<(SocketAddr, Setup)> {
    let program = std::env::current_exe().context("the path of this program")?;
    let variable = |name: &str| std::env::var(name).ok();
    let models = config
        .models
        .into_iter()
        .map(|model| model.into_setup(|model, gguf| worker(&program, model, gguf, log_format)));
    let setup = Setup {
        models: models.collect::<anyhow::Result<_>>()?,
        callers: config.callers,
        policies: config.policies,
        socket_folder: socket_folder.to_owned(),
        journal: state_folder.map(|folder| folder.join(format!("limits-{}.redb", config.listen.port()))),
        proxies: proxies(variable),
        telemetry: config.telemetry.filter(|_| !is_disabled(variable)),
        wall_clock: jiff::Timestamp::now,
    };
    Ok((config.listen, setup))
}

/// Where files and batches are kept, if that is anywhere. A folder that nobody has asked for need not be usable.
fn storage(states: Option<PathBuf>, config: &Config) -> anyhow::Result<Option<Storage>> {
    let Some(states) = states else { return Ok(None) };
    let folder = states.join(format!("batches-{}", config.listen.port()));
    match Storage::open(folder, config.files.clone(), config.batches.clone()) {
        Ok(storage) => Ok(Some(storage)),
        Err(error) if config.state_folder.is_none() => {
            tracing::warn!(%error, "no files and no batches are kept");
            Ok(None)
        }
        Err(error) => Err(Usage(error.to_string()).into()),
    }
}

/// What to do about an address that can't be had.
fn cannot_listen(listen: SocketAddr, place: Option<&Place>, error: &io::Error) -> Usage {
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this address; end it, or set `listen` to another port"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need permission; set `listen` to another one",
        _ => "set `listen` to an address of this machine",
    };
    Usage(format!("{place}can't listen on {listen}: {error}; {advice}"))
}

/// Each connection needs a file descriptor, and another one towards a deployment. Many systems allow a thousand at first, and
/// more to who asks.
fn allow_descriptors(connections: NonZeroUsize) {
    let wanted = 2 * connections.get() as u64 + 256;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted.min(most)),
        ..limit
    };
    if setrlimit(Resource::Nofile, raised).is_err() || most < wanted {
        tracing::warn!(
            connections,
            wanted,
            most,
            "the system does not allow as many open files as so many connections can need; raise `ulimit -n`"
        );
    }
}

/// The proxies that the environment names, as curl reads it: in small letters first.
fn proxies(variable: impl Fn(&str) -> Option<String>) -> ProxySetup {
    let either = |name: &str| variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
    let all = either("ALL_PROXY");
    let or_all = |name| either(name).or_else(|| all.clone()).unwrap_or_default();
    ProxySetup {
        http: or_all("HTTP_PROXY"),
        https: or_all("HTTPS_PROXY"),
        no_proxy: either("NO_PROXY").unwrap_or_default(),
    }
}

/// Whether the environment says that nothing is traced, as it can be said to any program that OpenTelemetry is in.
fn is_disabled(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Where what must outlive a restart is kept: in the folder that the configuration names, or in the user's for such things.
/// Servers on several ports keep apart what they know. One whose port the system chooses is another server each time, and
/// keeps something only where it is told to.
fn state_folder(configured: Option<PathBuf>, listen: SocketAddr) -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let of_user = || {
        let states = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
        (listen.port() != 0).then(|| states.join("llm-engine"))
    };
    configured.or_else(of_user)
}

/// How to start this program as the worker of a model.
fn worker(
    program: &Path,
    model: &ModelConfig,
    gguf: &GgufModel,
    log_format: Format,
) -> anyhow::Result<WorkerSetup> {
    if !cfg!(feature = "worker") {
        return Err(Usage(super::worker::NO_WORKER.to_owned()).into());
    }
    let mut arguments: Vec<OsString> = vec!["worker".into(), "--model".into(), (&model.name).into()];
    arguments.extend(["--log-format".into(), log_format.as_str().into()]);
    arguments.extend(["--gguf".into(), locate(gguf)?.into_os_string()]);
    if let Some(concurrency) = model.concurrency {
        arguments.extend(["--parallel".into(), concurrency.to_string().into()]);
    }
    if let Some(tokens) = gguf.context_tokens {
        arguments.extend(["--context-tokens".into(), tokens.to_string().into()]);
    }
    if let Some(threads) = gguf.threads {
        arguments.extend(["--threads".into(), threads.to_string().into()]);
    }
    Ok(WorkerSetup {
        program: program.to_owned(),
        arguments,
        is_adaptive: gguf.is_adaptive,
    })
}

/// Prints what a newcomer needs to know as soon as every model answers.
#[expect(
    clippy::print_stdout,
    reason = "the summary is what a person who starts the server is waiting for"
)]
async fn announce(gateway: Arc<Gateway>, summary: String, begun: Instant) {
    println!("{summary}");
    for route in gateway.routes() {
        loop {
            sleep(match route.status().await {
                RouteStatus::Ready => break,
                RouteStatus::Starting => Duration::from_millis(20),
                RouteStatus::Down => Duration::from_secs(1),
            })
            .await;
        }
    }
    println!("ready after {:.1} s", begun.elapsed().as_secs_f64());
}

fn ended_by_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_letters_come_first_and_all_is_for_what_is_not_named() {
        let variables = [
            ("http_proxy", "http://small:1"),
            ("HTTP_PROXY", "http://large:1"),
            ("ALL_PROXY", "http://all:1"),
            ("NO_PROXY", "intern.test"),
        ];
        let found = proxies(|name| {
            let mut named = variables.iter().filter(|(found, _)| *found == name);
            named.next().map(|(_, value)| (*value).to_owned())
        });
        let expected = ProxySetup {
            http: "http://small:1".to_owned(),
            https: "http://all:1".to_owned(),
            no_proxy: "intern.test".to_owned(),
        };
        assert!(found == expected);
        assert!(proxies(|_| None) == ProxySetup::default());
    }

    #[test]
    fn tracing_is_disabled_by_true_alone() {
        let disabled = |value: Option<&str>| is_disabled(|_| value.map(str::to_owned));
        assert!(disabled(Some("true")) && disabled(Some("TRUE")));
        assert!(!disabled(None) && !disabled(Some("")) && !disabled(Some("1")));
    }
}
