use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llm_engine_client::{Client, Lines};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::delivery::Deliveries;
use crate::seconds::Seconds;

/// What this process makes its calls with.
///
/// A forked process has none of the threads of its parent, connections that the parent goes on using, and locks that one of the
/// threads may have held just then: so it gets an engine of its own with its first call, and the parent's stays where it is, unused.
pub(crate) struct Engine {
    process: u32,
    /// Not those that all clients of a process have by default: a child would have its parent's.
    lines: Lines,
    pub(crate) runtime: Runtime,
    pub(crate) deliveries: Deliveries,
    clients: Mutex<HashMap<(String, String), Client>>,
}

/// Taken only by threads that are attached to Python, and not while anything of Python is called: so no other thread has it
/// when a process forks.
static ENGINE: Mutex<Option<&'static Engine>> = Mutex::new(None);

/// With more servers and keys than this, the connections to all are made anew.
const MOST_CLIENTS: usize = 256;
const THREADS: usize = 2;

impl Engine {
    /// The engine of this process.
    pub(crate) fn of_process(_py: Python<'_>) -> PyResult<&'static Self> {
        let process = std::process::id();
        let mut engine = lock(&ENGINE);
        if let Some(engine) = *engine
            && engine.process == process
        {
            return Ok(engine);
        }
        let made: &'static Self = Box::leak(Box::new(Self::new(process)?));
        Ok(engine.insert(made))
    }

    fn new(process: u32) -> PyResult<Self> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder
            .worker_threads(THREADS)
            .thread_name("llmengine")
            .enable_all();
        let failed =
            |error: std::io::Error| PyRuntimeError::new_err(format!("no threads can be made: {error}"));
        Ok(Self {
            process,
            lines: Lines::new(),
            runtime: builder.build().map_err(failed)?,
            deliveries: Deliveries::start().map_err(failed)?,
            clients: Mutex::default(),
        })
    }

    pub(crate) fn client(&self, base_url: &str, api_key: &str) -> PyResult<Client> {
        let mut clients = lock(&self.clients);
        let key = (base_url.to_owned(), api_key.to_owned());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        let client = Client::builder(base_url)
            .api_key(api_key)
            .user_agent(USER_AGENT)
            .lines(self.lines.clone())
            .build();
        let client = client.map_err(|error| PyValueError::new_err(error.to_string()))?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

const USER_AGENT: &str = concat!("llmengine-python/", env!("CARGO_PKG_VERSION"));

/// Returns when the server has been told of every call that was given up, after `most` at the latest.
#[pyfunction]
pub(crate) fn flush(py: Python<'_>, most: Seconds) {
    let Some(engine) = made_here() else { return };
    let clients: Vec<_> = lock(&engine.clients).values().cloned().collect();
    py.detach(|| {
        engine.runtime.block_on(async {
            let all = async {
                for client in &clients {
                    client.cancelled().await;
                }
            };
            // What is not done by then stays undone.
            let _ = timeout(most.0.min(Duration::from_secs(60)), all).await;
        });
    });
}

/// Before the interpreter ends: from here on no thread of this crate calls Python.
#[pyfunction]
pub(crate) fn stop_deliveries(py: Python<'_>) {
    if let Some(engine) = made_here() {
        py.detach(|| engine.deliveries.stop());
    }
}

/// The engine of this process, if it has one.
fn made_here() -> Option<&'static Engine> {
    let engine = *lock(&ENGINE);
    engine.filter(|engine| engine.process == std::process::id())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in there is ever half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
