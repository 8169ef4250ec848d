use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use llm_engine_retry::Hint;
use pyo3::pyfunction;

use crate::seconds::Seconds;

/// How long to wait, as the headers of an answer say it, their names in lower case; `None` if they don't.
#[pyfunction]
pub(crate) fn hint_from_headers(headers: HashMap<String, String>) -> Option<Seconds> {
    let since_unix_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = |name: &str| headers.get(name).map(String::as_str);
    Hint::from_headers(header, since_unix_epoch).map(|hint| Seconds(hint.after))
}
