use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use llm_engine_retry::{Backoff as Recipe, Jitter};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::random::generator;
use crate::seconds::Seconds;

/// How long to wait before each next attempt.
///
/// A wait is worked out in this order: the shape gives its value, `at_least` and `at_most` bound it, the jitter spreads it, and the
/// bounds hold again; so no wait is ever above the bound. All lengths of time are seconds or a `timedelta`.
///
/// >>> list(Backoff.exponential(1, 2).at_most(5).waits(4))
/// [1.0, 2.0, 4.0, 5.0]
/// >>> Backoff.constant(3) + Backoff.random(0, 1)
/// Backoff.constant(3) + Backoff.random(0, 1)
#[pyclass(frozen, eq, module = "llmengine", from_py_object)]
#[derive(Clone)]
pub(crate) struct Backoff {
    pub(crate) recipe: Recipe,
    /// As it is written in Python.
    text: String,
    is_sum: bool,
}

impl PartialEq for Backoff {
    fn eq(&self, other: &Self) -> bool {
        self.recipe == other.recipe
    }
}

impl Backoff {
    fn new(recipe: Recipe, text: impl Into<String>) -> Self {
        Self {
            recipe,
            text: text.into(),
            is_sum: false,
        }
    }

    fn with(&self, change: impl FnOnce(Recipe) -> Recipe, text: &str) -> Self {
        let before = if self.is_sum {
            format!("({})", self.text)
        } else {
            self.text.clone()
        };
        Self::new(change(self.recipe.clone()), format!("{before}{text}"))
    }
}

#[pymethods]
impl Backoff {
    /// The backoff of the published guide: each wait is drawn between 1 s and 1, 2, 4, … 60 s.
    #[staticmethod]
    fn published() -> Self {
        Self::new(Recipe::published(), "Backoff.published()")
    }

    /// Each wait is drawn between a second and three times the one before it, up to 60 s: what is used where nothing else is said.
    #[staticmethod]
    fn default() -> Self {
        Self::new(Recipe::default(), "Backoff.default()")
    }

    /// The same wait each time.
    #[staticmethod]
    fn constant(wait: Seconds) -> Self {
        Self::new(
            Recipe::constant(wait.0),
            format!("Backoff.constant({})", shown(wait.0)),
        )
    }

    /// Each wait is drawn anew between the two.
    #[staticmethod]
    fn random(least: Seconds, most: Seconds) -> PyResult<Self> {
        if most.0 < least.0 {
            return Err(PyValueError::new_err("the most can't be below the least"));
        }
        let text = format!("Backoff.random({}, {})", shown(least.0), shown(most.0));
        Ok(Self::new(Recipe::random(least.0..=most.0), text))
    }

    /// Each wait is `step` longer than the one before.
    #[staticmethod]
    fn linear(first: Seconds, step: Seconds) -> Self {
        let text = format!("Backoff.linear({}, {})", shown(first.0), shown(step.0));
        Self::new(Recipe::linear(first.0, step.0), text)
    }

    /// Each wait is `factor` times the one before.
    #[staticmethod]
    #[pyo3(signature = (first = Seconds(Duration::from_secs(1)), factor = 2.0), text_signature = "(first=1, factor=2)")]
    fn exponential(first: Seconds, factor: f64) -> PyResult<Self> {
        if factor.is_nan() || factor < 0.0 {
            return Err(PyValueError::new_err("the factor can't be below 0"));
        }
        let text = format!("Backoff.exponential({}, {factor})", shown(first.0));
        Ok(Self::new(Recipe::exponential(first.0, factor), text))
    }

    /// Each wait is the sum of the two before: `unit` times 1, 1, 2, 3, 5, …
    #[staticmethod]
    #[pyo3(signature = (unit = Seconds(Duration::from_secs(1))), text_signature = "(unit=1)")]
    fn fibonacci(unit: Seconds) -> Self {
        Self::new(
            Recipe::fibonacci(unit.0),
            format!("Backoff.fibonacci({})", shown(unit.0)),
        )
    }

    /// Each wait is drawn between `first` and three times the wait before it.
    #[staticmethod]
    #[pyo3(signature = (first = Seconds(Duration::from_secs(1))), text_signature = "(first=1)")]
    fn decorrelated(first: Seconds) -> Self {
        Self::new(
            Recipe::decorrelated(first.0),
            format!("Backoff.decorrelated({})", shown(first.0)),
        )
    }

    /// The first wait is the first backoff's first, the second is the second's second, and so on; the last goes on for ever.
    #[staticmethod]
    #[pyo3(signature = (*backoffs), text_signature = "(*backoffs)")]
    fn sequence(backoffs: &Bound<'_, PyTuple>) -> PyResult<Self> {
        let backoffs = backoffs
            .iter()
            .map(|backoff| Ok(backoff.extract::<Self>()?))
            .collect::<PyResult<Vec<_>>>()?;
        if backoffs.is_empty() {
            return Err(PyValueError::new_err("a sequence of no backoffs has no waits"));
        }
        let texts: Vec<_> = backoffs.iter().map(|backoff| backoff.text.as_str()).collect();
        let text = format!("Backoff.sequence({})", texts.join(", "));
        Ok(Self::new(
            Recipe::sequence(backoffs.into_iter().map(|backoff| backoff.recipe)),
            text,
        ))
    }

    /// No wait is shorter.
    fn at_least(&self, least: Seconds) -> Self {
        self.with(
            |recipe| recipe.at_least(least.0),
            &format!(".at_least({})", shown(least.0)),
        )
    }

    /// No wait is longer, whatever the jitter. If it is below `at_least`, that wins.
    fn at_most(&self, most: Seconds) -> Self {
        self.with(
            |recipe| recipe.at_most(most.0),
            &format!(".at_most({})", shown(most.0)),
        )
    }

    /// Spreads the waits: `"full"` from the least wait up to the wait, `"equal"` from half of it, `"additive"` up to `most` on top of
    /// it, `"none"` not at all.
    #[pyo3(signature = (kind, most = None))]
    fn jitter(&self, kind: &str, most: Option<Seconds>) -> PyResult<Self> {
        let jitter = match (kind, most) {
            ("none", None) => Jitter::None,
            ("full", None) => Jitter::Full,
            ("equal", None) => Jitter::Equal,
            ("additive", Some(most)) => Jitter::Additive(most.0),
            ("additive", None) => {
                return Err(PyValueError::new_err(
                    "additive jitter needs the most that is added",
                ));
            }
            ("none" | "full" | "equal", Some(_)) => {
                return Err(PyValueError::new_err(
                    "only additive jitter takes the most that is added",
                ));
            }
            _ => {
                let message = format!("there is no jitter {kind:?}: none, full, equal or additive");
                return Err(PyValueError::new_err(message));
            }
        };
        let mut text = format!(".jitter({kind:?}");
        if let Some(most) = most {
            let _ = write!(text, ", {}", shown(most.0));
        }
        Ok(self.with(|recipe| recipe.jitter(jitter), &(text + ")")))
    }

    /// The shortest wait that can come.
    #[getter]
    fn least(&self) -> Seconds {
        Seconds(self.recipe.least())
    }

    /// The first `count` waits, or endless ones, in seconds. With the same seed they are the same.
    #[pyo3(signature = (count = None, *, seed = None))]
    fn waits(&self, count: Option<usize>, seed: Option<u64>) -> Waits {
        Waits {
            waits: waits(&self.recipe, seed),
            left: count,
        }
    }

    /// A wait after the attempt of this number, from 1.
    #[pyo3(signature = (attempt, *, seed = None))]
    fn wait(&self, attempt: u32, seed: Option<u64>) -> PyResult<Seconds> {
        // Longer than anybody tries; beyond it, all are alike.
        const MOST: u32 = 1_000;
        let Some(before) = attempt.checked_sub(1) else {
            return Err(PyValueError::new_err("attempts are counted from 1"));
        };
        let wait = waits(&self.recipe, seed).nth(before.min(MOST) as usize);
        Ok(Seconds(wait.unwrap_or_default()))
    }

    fn __add__(&self, other: &Self) -> Self {
        Self {
            is_sum: true,
            ..Self::new(
                self.recipe.clone() + other.recipe.clone(),
                format!("{} + {}", self.text, other.text),
            )
        }
    }

    fn __repr__(&self) -> &str {
        &self.text
    }
}

/// Waits, one after the other, in seconds.
#[pyclass(module = "llmengine")]
pub(crate) struct Waits {
    waits: RecipeWaits,
    left: Option<usize>,
}

pub(crate) type RecipeWaits = llm_engine_retry::Waits<Random>;
pub(crate) type Random = Box<dyn FnMut() -> f64 + Send + Sync>;

#[pymethods]
impl Waits {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self) -> Option<Seconds> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.waits.next().map(Seconds)
    }
}

pub(crate) fn random(seed: Option<u64>) -> Random {
    let mut random: Rng = generator(seed);
    Box::new(move || random.f64())
}

fn waits(recipe: &Recipe, seed: Option<u64>) -> RecipeWaits {
    recipe.waits(random(seed))
}

fn shown(duration: Duration) -> String {
    if duration == Duration::MAX {
        "inf".to_owned()
    } else {
        duration.as_secs_f64().to_string()
    }
}
