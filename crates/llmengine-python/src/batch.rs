use std::path::PathBuf;

use llm_engine_batch::{
    End, Form, Format, Input, Most, OpenError, Order, RunError, Settings, Tally, Wish, open, run,
};
use llm_engine_client::Client;
use llm_engine_client::batch::{Dialect, Prices, Sender};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::seconds::Seconds;
use crate::waiting::wait;

/// A run of a batch, ready to be begun or gone on with.
#[pyclass(frozen, module = "llmengine._native")]
pub(crate) struct Run {
    input: Input,
    output: PathBuf,
    form: Form,
    order: Order,
    defaults: serde_json::Map<String, serde_json::Value>,
    servers: (String, Dialect),
    api_keys: Vec<String>,
    prices: Prices,
    settings: Settings,
    deadline: Option<Seconds>,
}

#[pymethods]
impl Run {
    #[new]
    #[pyo3(signature = (input, output, *, base_url, is_openai, api_keys, defaults, ordered, concurrency, max_attempts, patience,
        deadline, max_tokens, max_nano_usd, nano_usd_per_input_token, nano_usd_per_output_token))]
    #[expect(clippy::too_many_arguments, reason = "named in Python, where they come from")]
    fn new(
        input: PathBuf,
        output: PathBuf,
        base_url: String,
        is_openai: bool,
        api_keys: Vec<String>,
        defaults: &str,
        ordered: bool,
        concurrency: usize,
        max_attempts: u32,
        patience: Seconds,
        deadline: Option<Seconds>,
        max_tokens: Option<u64>,
        max_nano_usd: Option<u64>,
        nano_usd_per_input_token: u64,
        nano_usd_per_output_token: u64,
    ) -> PyResult<Self> {
        let defaults =
            serde_json::from_str(defaults).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let input = Input::new(&input, Format::of(&input));
        let form = Form::of(&output, &input)?;
        if concurrency == 0 || max_attempts == 0 || api_keys.is_empty() {
            let message = "concurrency and max_attempts must be at least 1, and there must be an API key";
            return Err(PyValueError::new_err(message));
        }
        Ok(Self {
            form,
            input,
            output,
            order: if ordered { Order::Input } else { Order::Completion },
            defaults,
            servers: if is_openai {
                Dialect::openai(&base_url)
            } else {
                (base_url, Dialect::LlmEngine)
            },
            settings: Settings {
                concurrency,
                senders: u32::try_from(api_keys.len()).unwrap_or(u32::MAX),
                max_attempts,
                patience: patience.0,
                most: Most {
                    tokens: max_tokens,
                    nano_usd: max_nano_usd,
                },
                ..Settings::default()
            },
            api_keys,
            prices: Prices {
                nano_usd_per_input_token,
                nano_usd_per_output_token,
            },
            deadline,
        })
    }

    /// Runs it until it ends: returns how, in a word and in words, and how far it has come.
    fn run<'py>(
        &self,
        py: Python<'py>,
        retry_failed: bool,
        check: Option<Py<PyAny>>,
        on_progress: Option<Py<PyAny>>,
    ) -> PyResult<(&'static str, String, Progress)> {
        let engine = Engine::of_process(py)?;
        let mut sender = self.sender(engine)?.prices(self.prices);
        if let Some(check) = check {
            sender = sender.check(Box::new(move |text| checked(&check, text)));
        }
        let mut journal = py
            .detach(|| open(&self.output, &self.input, self.journal_settings()))
            .map_err(cannot_open)?;
        if retry_failed {
            journal.reopen_failed().map_err(os_error)?;
        }
        let settings = Settings {
            deadline: self
                .deadline
                .and_then(|deadline| Instant::now().checked_add(deadline.0)),
            ..self.settings.clone()
        };
        let mut raised = None;
        let (wish, wishes) = watch::channel(Wish::GoOn);
        let observe = |tally: &Tally| {
            let Some(on_progress) = &on_progress else { return };
            let told = Python::attach(|py| on_progress.call1(py, (Progress::of(tally),)).map(drop));
            if let Err(error) = told {
                raised.get_or_insert(error);
                wish.send_replace(Wish::Finish);
            }
        };
        let end = if journal.is_complete() {
            End::Complete
        } else {
            let work = run(&sender, &settings, &self.input, &mut journal, wishes, observe);
            match wait(py, engine, work)? {
                Ok(end) => end,
                Err(RunError::Journal(error)) => return Err(os_error(error)),
                Err(error @ RunError::Input(_)) => return Err(os_error(error)),
            }
        };
        if let Some(error) = raised {
            return Err(error);
        }
        if journal.is_complete() && !(journal.is_written() && self.output.exists()) {
            let written = py.detach(|| journal.write_output(&self.output, self.form, self.order));
            written.map_err(os_error)?;
        }
        Ok((end.word(), end.to_string(), Progress::of(&journal.tally())))
    }
}

impl Run {
    fn sender(&self, engine: &Engine) -> PyResult<Sender> {
        let (url, dialect) = &self.servers;
        let clients = self
            .api_keys
            .iter()
            .map(|key| Client::builder(url).api_key(key).lines(engine.lines()));
        let sender = Sender::new(clients, *dialect, self.defaults.clone(), self.form);
        sender.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// What must not change while a run is gone on with.
    fn journal_settings(&self) -> serde_json::Value {
        self.form.settings(&self.defaults)
    }
}

/// How far a run has come.
#[pyclass(frozen, get_all, module = "llmengine._native")]
pub(crate) struct Progress {
    rows: u64,
    ended: u64,
    errors: u64,
    in_flight: usize,
    input_tokens: u64,
    output_tokens: u64,
    usd: f64,
    may_be_generated_twice: u64,
}

impl Progress {
    #[expect(clippy::cast_precision_loss, reason = "dollars are for people")]
    fn of(tally: &Tally) -> Self {
        Self {
            rows: tally.rows,
            ended: tally.ended,
            errors: tally.failed,
            in_flight: tally.in_flight,
            input_tokens: tally.usage.input_tokens,
            output_tokens: tally.usage.output_tokens,
            usd: tally.usage.nano_usd as f64 / 1e9,
            may_be_generated_twice: tally.doubles,
        }
    }
}

/// What the function says is wrong with the text, or raises.
fn checked(check: &Py<PyAny>, text: &str) -> Result<(), String> {
    let said: PyResult<Option<String>> = Python::attach(|py| check.call1(py, (text,))?.extract(py));
    match said {
        Ok(None) => Ok(()),
        Ok(Some(wrong)) => Err(wrong),
        Err(error) => Err(error.to_string()),
    }
}

fn cannot_open(error: OpenError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn os_error(error: impl std::fmt::Display) -> PyErr {
    PyOSError::new_err(error.to_string())
}
