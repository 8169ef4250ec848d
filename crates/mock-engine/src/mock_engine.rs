use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use llm_engine_overload::{Change, EngineSetup};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::server::router;

/// The engine; it ends when this is dropped.
#[derive(Debug)]
pub struct MockEngine {
    url: String,
    batch: Arc<Batch>,
    /// Its end is told by being dropped.
    _running: oneshot::Sender<()>,
}

/// What it has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests that came.
    pub requests: u64,
    /// Those that have reached the engine and have not ended.
    pub running: usize,
    /// Those whose client hung up.
    pub aborts: Vec<Abort>,
    /// The first tokens of answers.
    pub first_tokens: Vec<FirstToken>,
    /// How often the engine put back an answer.
    pub preemptions: u64,
    /// By how much a step was late at most: what is measured on a machine that is too busy says little.
    pub late: Duration,
}

/// A client has hung up.
#[derive(Debug, Clone, Copy)]
pub struct Abort {
    /// When that was noticed.
    pub at: Instant,
    /// Tokens of its answer until then; `None` if it was not with the engine: not yet, or not any more.
    pub written: Option<u64>,
}

/// The first token of an answer.
#[derive(Debug, Clone, Copy)]
pub struct FirstToken {
    /// When it was there.
    pub at: Instant,
    /// How long after the request had come.
    pub after: Duration,
}

impl MockEngine {
    /// Starts it, on a thread of its own: it works while a test waits, and has a core to itself if there is one.
    ///
    /// # Panics
    /// If no loopback port can be had.
    #[must_use]
    pub fn start(setup: EngineSetup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener
            .set_nonblocking(true)
            .expect("a listener that can be waited for");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let batch = Arc::new(Batch::new(setup));
        let (running, ended) = oneshot::channel();
        let at_work = Arc::clone(&batch);
        thread::spawn(move || serve(listener, &at_work, ended));
        Self {
            url,
            batch,
            _running: running,
        }
    }

    /// Where it is; its routes begin with `/v1`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Something happens to it.
    pub fn change(&self, change: Change) {
        self.batch.change(change);
    }

    /// Seconds that requests take before it has them.
    #[must_use]
    pub fn base_seconds(&self) -> f64 {
        self.batch.base_seconds()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.batch.seen()
    }
}

fn serve(listener: TcpListener, batch: &Arc<Batch>, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        // A token must not wait for the acknowledgement of the one before.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        tokio::select! {
            _ = axum::serve(listener, router(Arc::clone(batch))) => {}
            () = batch.run() => {}
            _ = ended => {}
        }
    });
}
