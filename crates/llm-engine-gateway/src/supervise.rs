use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use prometheus_client::metrics::counter::Counter;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::WorkerSetup;

/// A model worker: a process that is started, watched, and started again when it ends.
#[derive(Debug)]
pub(crate) struct Worker {
    state: watch::Receiver<WorkerState>,
}

/// What the worker can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerState {
    /// It is loading its model.
    Starting,
    /// It answers on this socket.
    Ready(Arc<Path>),
    /// It has ended and will be started again.
    Down,
}

/// After a crash the worker is started again at once, then after waits that double up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A worker that has run this long was well: the next crash is a first one again.
const RAN_WELL: Duration = Duration::from_secs(60);
/// How long a worker may load its model.
const LOADING: Duration = Duration::from_secs(300);
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// How long a worker may take to end by itself.
const ENDING: Duration = Duration::from_secs(5);

impl Worker {
    /// Starts the worker, and keeps it running until `stop`.
    pub(crate) fn start(
        model: &str,
        id: u32,
        setup: WorkerSetup,
        restarts: Counter,
        socket_folder: &Path,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (sender, state) = watch::channel(WorkerState::Starting);
        let supervisor = Supervisor {
            model: model.to_owned(),
            id,
            setup,
            restarts,
            socket_folder: socket_folder.to_owned(),
            state: sender,
            stop,
        };
        tasks.spawn(supervisor.run());
        Self { state }
    }

    pub(crate) fn state(&self) -> WorkerState {
        self.state.borrow().clone()
    }
}

struct Supervisor {
    model: String,
    /// Tells apart models whose names look the same as file names.
    id: u32,
    setup: WorkerSetup,
    restarts: Counter,
    socket_folder: PathBuf,
    state: watch::Sender<WorkerState>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self) {
        let mut backoff = FIRST_BACKOFF;
        for start in 0_u64.. {
            if self.stop.is_cancelled() {
                return;
            }
            // A new socket each time, so that no kept connection leads to a worker that is gone.
            let socket =
                self.socket_folder
                    .join(format!("{}-{}-{start}.sock", file_name(&self.model), self.id));
            let begun = Instant::now();
            let ended = self.run_once(&socket).await;
            let _ = std::fs::remove_file(&socket);
            let Some(reason) = ended else { return };
            self.state.send_replace(WorkerState::Down);
            if begun.elapsed() >= RAN_WELL {
                backoff = FIRST_BACKOFF;
            }
            tracing::error!(model = self.model, reason, again_in = ?backoff, "the model worker has ended");
            tokio::select! {
                () = sleep(backoff) => {}
                () = self.stop.cancelled() => return,
            }
            self.restarts.inc();
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            self.state.send_replace(WorkerState::Starting);
        }
    }

    /// One life of the worker. Returns why it ended, or `None` after `stop`.
    async fn run_once(&self, socket: &Path) -> Option<String> {
        let mut child = match self.spawn(socket) {
            Ok(child) => child,
            Err(error) => {
                return Some(format!(
                    "{} can't be started: {error}",
                    self.setup.program.display()
                ));
            }
        };
        // Taken out, because waiting for the child would close it.
        let lifeline = child.stdin.take();
        let loaded = async { timeout(LOADING, answers(socket)).await.is_ok() };
        tokio::select! {
            exit = child.wait() => return Some(describe(exit)),
            () = self.stop.cancelled() => return end(child, lifeline).await,
            loaded = loaded => if !loaded {
                let _ = child.kill().await;
                return Some(format!("it did not load its model within {} s", LOADING.as_secs()));
            },
        }
        tracing::info!(
            model = self.model,
            process_id = child.id(),
            "the model worker is ready"
        );
        self.state.send_replace(WorkerState::Ready(socket.into()));
        tokio::select! {
            exit = child.wait() => Some(describe(exit)),
            () = self.stop.cancelled() => end(child, lifeline).await,
        }
    }

    fn spawn(&self, socket: &Path) -> std::io::Result<Child> {
        Command::new(&self.setup.program)
            .args(&self.setup.arguments)
            .arg("--socket")
            .arg(socket)
            // The worker ends when its standard input does: also when we are killed and can't tell it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C in a terminal goes to the whole process group; the worker must outlive it to drain.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Returns when the worker on this socket says that it is well.
async fn answers(socket: &Path) {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(UnixConnector);
    loop {
        let health = client.get(hyperlocal::Uri::new(socket, "/health").into());
        if health.await.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        sleep(PROBE_EVERY).await;
    }
}

async fn end(mut child: Child, lifeline: Option<ChildStdin>) -> Option<String> {
    drop(lifeline);
    if timeout(ENDING, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    None
}

fn describe(exit: std::io::Result<ExitStatus>) -> String {
    match exit {
        Ok(status) => format!("its process ended with {status}"),
        Err(error) => format!("its process can't be watched: {error}"),
    }
}

/// A model's name with everything replaced that may not stand in a file name.
fn file_name(model: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') {
            c
        } else {
            '_'
        }
    };
    model.chars().map(safe).take(40).collect()
}

#[cfg(test)]
mod tests;
