use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Where connections are served, each on one of these for as long as it lives.
///
/// A request stays on its thread from its first byte to its last, with the connection that it came by and the one to the
/// deployment: handing it to another thread costs more than most of what is done for it.
#[derive(Debug)]
pub struct Cores {
    cores: Vec<Core>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Core {
    runtime: Handle,
    /// Each connection has a clone of it.
    connections: Arc<()>,
    thread: Option<JoinHandle<()>>,
}

/// A connection's place on a core, until this is dropped.
#[derive(Debug)]
pub(crate) struct OnCore(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Cores {
    /// The runtime of who calls this, alone.
    #[must_use]
    pub fn here() -> Self {
        Self {
            cores: vec![Core {
                runtime: Handle::current(),
                connections: Arc::default(),
                thread: None,
            }],
            stop: CancellationToken::new(),
        }
    }

    /// As many threads, each with a runtime of its own.
    ///
    /// # Errors
    /// What the system says if it has no threads.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let mut started = Self {
            cores: Vec::new(),
            stop: CancellationToken::new(),
        };
        for index in 0..count.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let stop = started.stop.clone();
            let thread = thread::Builder::new().name(format!("core-{index}"));
            let thread = thread.spawn(move || runtime.block_on(stop.cancelled()))?;
            started.cores.push(Core {
                runtime: handle,
                connections: Arc::default(),
                thread: Some(thread),
            });
        }
        Ok(started)
    }

    /// The one with the fewest connections, and a place on it.
    pub(crate) fn least_busy(&self) -> (&Handle, OnCore) {
        let core = self
            .cores
            .iter()
            .min_by_key(|core| Arc::strong_count(&core.connections));
        let core = core.expect("there is at least one");
        (&core.runtime, OnCore(Arc::clone(&core.connections)))
    }
}

impl Drop for Cores {
    /// What still runs on them ends.
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.cores.iter_mut().filter_map(|core| core.thread.take()) {
            let _ = thread.join();
        }
    }
}
