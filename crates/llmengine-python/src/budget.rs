use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use llm_engine_retry::Budget as Account;
use pyo3::prelude::*;

/// How many retries there may be in all, as a share of the calls: of the last 10 s a fifth of them, and 10 for those who
/// have few. So that an outage is not made worse by everybody trying six times. Given to `retry`, and shared by what shall be
/// counted together; retries whose time was named by whoever refused are free.
#[pyclass(frozen, module = "llmengine")]
pub(crate) struct Budget {
    account: Mutex<Account>,
    epoch: Instant,
}

impl Budget {
    fn account(&self) -> MutexGuard<'_, Account> {
        // Nothing in there is half done when a thread panics, only not counted.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Budget {
    #[new]
    fn new() -> Self {
        Self {
            account: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// Counts a call.
    fn request(&self) {
        let now = self.epoch.elapsed();
        self.account().request(now);
    }

    /// Takes a retry from the budget, or says no.
    pub(crate) fn retry(&self) -> bool {
        let now = self.epoch.elapsed();
        self.account().retry(now)
    }

    fn __repr__(&self) -> &'static str {
        "Budget()"
    }
}
