use http::Method;
use llm_engine_client::{Answer as Received, Backoff, Call as Request, Client, Retry, Stop};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::task::AbortHandle;

use crate::attempts::Attempt;
use crate::engine::Engine;
use crate::error::raised;
use crate::events::Events;
use crate::line::Line;
use crate::seconds::Seconds;
use crate::waiting::wait;

/// A request to the server, ready to be made.
#[pyclass(frozen, module = "llmengine._native")]
pub(crate) struct Call {
    request: Request,
    line: Line,
}

/// A whole answer.
#[pyclass(frozen, module = "llmengine._native")]
pub(crate) struct Answer(Received);

/// A call that runs by itself.
#[pyclass(frozen, module = "llmengine._native")]
pub(crate) struct Running(AbortHandle);

#[pymethods]
impl Call {
    #[new]
    #[pyo3(signature = (base_url, api_key, method, path, *, query, headers, body, model, timeout, max_retries))]
    #[expect(clippy::too_many_arguments, reason = "named in Python, where they come from")]
    fn new(
        base_url: String,
        api_key: String,
        method: &str,
        path: String,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        body: Option<Vec<u8>>,
        model: Option<String>,
        timeout: Seconds,
        max_retries: u32,
    ) -> PyResult<Self> {
        let invalid = |what: String| PyValueError::new_err(what);
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| invalid(format!("{method:?} is no method")))?;
        let attempts = max_retries.saturating_add(1);
        let mut request = Request::new(method, path)
            .timeout(timeout.0)
            .retry(Retry::new(Backoff::default(), Stop::after_attempts(attempts)))
            .max_attempts(attempts);
        for (name, value) in query {
            request = request.query(name, value);
        }
        for (name, value) in headers {
            let header = http::HeaderName::try_from(name.as_str()).ok();
            let header = header.zip(http::HeaderValue::try_from(value).ok());
            let (name, value) =
                header.ok_or_else(|| invalid(format!("the header {name:?} can't be sent")))?;
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        Ok(Self {
            request,
            line: Line::new(base_url, api_key, model),
        })
    }

    /// Makes the call, and waits for the whole answer.
    fn send(&self, py: Python<'_>) -> PyResult<Answer> {
        let (engine, client, request) = self.prepared(py)?;
        let answer = wait(py, engine, client.call(request))?;
        answer.map(Answer).map_err(|error| raised(py, &error, &self.line))
    }

    /// Makes the call, and waits for the beginning of an answer in pieces.
    fn open(&self, py: Python<'_>) -> PyResult<Events> {
        let (engine, client, request) = self.prepared(py)?;
        let opened = wait(py, engine, client.stream(request))?;
        opened
            .map(|stream| Events::new(stream, self.line.clone()))
            .map_err(|error| raised(py, &error, &self.line))
    }

    /// Makes the call by itself; `future` of `event_loop` gets the whole answer.
    fn start(&self, py: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> PyResult<Running> {
        let (engine, client, request) = self.prepared(py)?;
        let (promise, line) = (engine.deliveries.promise(event_loop, future), self.line.clone());
        Ok(Running::new(engine, async move {
            let answer = client.call(request).await;
            promise.keep(move |py| match answer {
                Ok(answer) => Ok(Py::new(py, Answer(answer))?.into_any()),
                Err(error) => Err(raised(py, &error, &line)),
            });
        }))
    }

    /// Makes the call by itself; `future` of `event_loop` gets the beginning of an answer in pieces.
    fn start_open(&self, py: Python<'_>, event_loop: Py<PyAny>, future: Py<PyAny>) -> PyResult<Running> {
        let (engine, client, request) = self.prepared(py)?;
        let (promise, line) = (engine.deliveries.promise(event_loop, future), self.line.clone());
        Ok(Running::new(engine, async move {
            let opened = client.stream(request).await;
            promise.keep(move |py| match opened {
                Ok(stream) => Ok(Py::new(py, Events::new(stream, line))?.into_any()),
                Err(error) => Err(raised(py, &error, &line)),
            });
        }))
    }
}

impl Call {
    fn prepared(&self, py: Python<'_>) -> PyResult<(&'static Engine, Client, Request)> {
        let engine = Engine::of_process(py)?;
        let client = engine.client(self.line.base_url(), self.line.api_key())?;
        let request = self.request.clone();
        let request = match self.line.model() {
            Some(model) => request.model(model),
            None => request,
        };
        Ok((engine, client, request))
    }
}

#[pymethods]
impl Answer {
    #[getter]
    fn status(&self) -> u16 {
        self.0.status.as_u16()
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.body)
    }

    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.0.request_id()
    }

    /// The attempts before it, all of which failed.
    #[getter]
    fn failed_attempts(&self) -> Vec<Attempt> {
        self.0.failed_attempts.iter().cloned().map(Attempt).collect()
    }
}

impl Running {
    pub(crate) fn new(engine: &Engine, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(engine.runtime.spawn(work).abort_handle())
    }
}

#[pymethods]
impl Running {
    /// Gives it up, at the server too. Nothing happens if it is done.
    fn cancel(&self) {
        self.0.abort();
    }
}
