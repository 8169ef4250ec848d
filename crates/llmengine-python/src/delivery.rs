//! From the runtime to Python's event loops.
//!
//! The runtime's threads never wait for Python: what they have done, one thread hands over, as much at once as there is. With each
//! result handed over by the runtime's own threads, of which there are two, thousands of calls would wait for those to get
//! the interpreter's lock.

use std::sync::mpsc::{Receiver, Sender, channel};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Makes the Python object, or the exception, that a future gets.
type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// Where to put what is to be handed over.
#[derive(Clone)]
pub(crate) struct Deliveries(Sender<Message>);

enum Message {
    Deliver(Delivery),
    /// Nothing more; says so when nothing is under way.
    Stop(Sender<()>),
}

struct Delivery {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    outcome: Outcome,
}

/// A future of `asyncio` that waits for an outcome.
pub(crate) struct Promise {
    deliveries: Deliveries,
    of: Option<(Py<PyAny>, Py<PyAny>)>,
}

/// At most so many results are handed over while the event loop waits for the interpreter.
const MOST_AT_ONCE: usize = 256;

impl Deliveries {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("llmengine-deliver".to_owned());
        thread.spawn(move || hand_over(&receiver))?;
        Ok(Self(sender))
    }

    /// Returns when nothing is handed over any more: an interpreter that is ending stands no other threads.
    pub(crate) fn stop(&self) {
        let (stopped, wait) = channel();
        if self.0.send(Message::Stop(stopped)).is_ok() {
            // An error says that the thread has ended, which is as good.
            let _ = wait.recv();
        }
    }

    pub(crate) fn promise(&self, event_loop: Py<PyAny>, future: Py<PyAny>) -> Promise {
        Promise {
            deliveries: self.clone(),
            of: Some((event_loop, future)),
        }
    }
}

impl Promise {
    pub(crate) fn keep(mut self, outcome: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) {
        self.send(Box::new(outcome));
    }

    fn send(&mut self, outcome: Outcome) {
        if let Some((event_loop, future)) = self.of.take() {
            // It fails only when the process ends.
            let _ = self.deliveries.0.send(Message::Deliver(Delivery {
                event_loop,
                future,
                outcome,
            }));
        }
    }
}

/// Nobody shall wait for ever for a call that panicked. One that was cancelled, nobody waits for.
impl Drop for Promise {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.send(Box::new(|_| {
                Err(PyRuntimeError::new_err(
                    "the call ended by a mistake in llmengine",
                ))
            }));
        }
    }
}

fn hand_over(messages: &Receiver<Message>) {
    while let Ok(first) = messages.recv() {
        let mut batch = Vec::new();
        for message in std::iter::once(first).chain(messages.try_iter().take(MOST_AT_ONCE - 1)) {
            match message {
                Message::Deliver(delivery) => batch.push(delivery),
                Message::Stop(stopped) => {
                    // It fails if nobody waits any more.
                    let _ = stopped.send(());
                    return;
                }
            }
        }
        let handed_over = Python::try_attach(|py| {
            for of_one_loop in by_loop(batch) {
                if let Err(error) = settle(py, of_one_loop)
                    // The loop is closed: nobody waits any more.
                    && !error.is_instance_of::<PyRuntimeError>(py)
                {
                    error.write_unraisable(py, None);
                }
            }
        });
        if handed_over.is_none() {
            // The interpreter has ended.
            return;
        }
    }
}

fn by_loop(batch: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut parts: Vec<Vec<Delivery>> = Vec::new();
    for delivery in batch {
        match parts
            .iter_mut()
            .find(|part| part[0].event_loop.is(&delivery.event_loop))
        {
            Some(part) => part.push(delivery),
            None => parts.push(vec![delivery]),
        }
    }
    parts
}

fn settle(py: Python<'_>, deliveries: Vec<Delivery>) -> PyResult<()> {
    let event_loop = deliveries[0].event_loop.clone_ref(py);
    let settled = PyList::empty(py);
    for Delivery { future, outcome, .. } in deliveries {
        match outcome(py) {
            Ok(value) => settled.append((future, value, py.None()))?,
            Err(error) => settled.append((future, py.None(), error.into_value(py)))?,
        }
    }
    let settle_all = py.import("llmengine._calls")?.getattr("settle_all")?;
    event_loop.call_method1(py, "call_soon_threadsafe", (settle_all, settled))?;
    Ok(())
}
