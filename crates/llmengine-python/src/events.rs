use std::sync::{Arc, Mutex, PoisonError};

use llm_engine_client::{Error, EventStream};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tokio::sync::Mutex as Turn;

use crate::call::Running;
use crate::engine::Engine;
use crate::error::raised;
use crate::line::Line;
use crate::waiting::wait;

/// An answer that comes in pieces. Closed, or forgotten, before its end, it is cancelled at the server.
#[pyclass(frozen, module = "llmengine._native")]
pub(crate) struct Events {
    /// `None` when it is closed.
    stream: Mutex<Option<Arc<Turn<EventStream>>>>,
    line: Line,
    request_id: Option<String>,
}

/// The data of some events; no more, at the end.
type Pieces = Vec<Vec<u8>>;

impl Events {
    pub(crate) fn new(stream: EventStream, line: Line) -> Self {
        Self {
            request_id: stream.request_id().map(str::to_owned),
            stream: Mutex::new(Some(Arc::new(Turn::new(stream)))),
            line,
        }
    }

    fn stream(&self) -> Option<Arc<Turn<EventStream>>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[pymethods]
impl Events {
    /// Waits for the next events: the data of as many as are there, at least one. None at all means the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let Some(stream) = self.stream() else {
            return Ok(PyList::empty(py));
        };
        let engine = Engine::of_process(py)?;
        let pieces = wait(py, engine, next_pieces(stream));
        if pieces.is_err() {
            self.close();
        }
        match pieces? {
            Ok(pieces) => list(py, &pieces),
            Err(error) => Err(raised(py, &error, &self.line)),
        }
    }

    /// The same by itself: `future` of `event_loop` gets the list.
    fn start_next(&self, py: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> PyResult<Running> {
        let closed = || PyRuntimeError::new_err("the stream is closed");
        let stream = self.stream().ok_or_else(closed)?;
        let engine = Engine::of_process(py)?;
        let (promise, line) = (engine.deliveries.promise(event_loop, future), self.line.clone());
        Ok(Running::new(engine, async move {
            let pieces = next_pieces(stream).await;
            promise.keep(move |py| match pieces {
                Ok(pieces) => Ok(list(py, &pieces)?.into_any().unbind()),
                Err(error) => Err(raised(py, &error, &line)),
            });
        }))
    }

    /// What the server calls the request.
    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Gives it up, at the server too, if it has not ended.
    fn close(&self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(stream);
    }
}

/// The next event, and those after it that are there already.
async fn next_pieces(stream: Arc<Turn<EventStream>>) -> Result<Pieces, Error> {
    const MOST_AT_ONCE: usize = 256;
    let mut stream = stream.lock().await;
    let mut pieces = Pieces::new();
    let Some(first) = stream.next().await else {
        return Ok(pieces);
    };
    pieces.push(first?.to_vec());
    while pieces.len() < MOST_AT_ONCE
        && let Some(piece) = stream.next_ready()
    {
        pieces.push(piece.to_vec());
    }
    Ok(pieces)
}

fn list<'py>(py: Python<'py>, pieces: &Pieces) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, pieces.iter().map(|piece| PyBytes::new(py, piece)))
}
