use std::sync::Arc;

use pyo3::prelude::*;

use crate::engine::Engine;
use crate::seconds::Seconds;

/// The line in which all calls of this process stand that go to one model of one server with one key.
#[pyclass(frozen, module = "llmengine._native")]
#[derive(Clone)]
pub(crate) struct Line(Arc<Ends>);

struct Ends {
    base_url: String,
    api_key: String,
    model: Option<String>,
}

impl Line {
    pub(crate) fn new(base_url: String, api_key: String, model: Option<String>) -> Self {
        Self(Arc::new(Ends {
            base_url,
            api_key,
            model,
        }))
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.0.base_url
    }

    pub(crate) fn api_key(&self) -> &str {
        &self.0.api_key
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }
}

#[pymethods]
impl Line {
    /// For how many seconds from now nobody leaves it.
    fn held_for(&self, py: Python<'_>) -> PyResult<Seconds> {
        let engine = Engine::of_process(py)?;
        let client = engine.client(self.base_url(), self.api_key())?;
        let held_for = self.model().map(|model| client.held_for(model));
        Ok(Seconds(held_for.unwrap_or_default()))
    }
}
