use std::convert::Infallible;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// A length of time as Python programs give it: seconds, or a `timedelta`. Never below 0; endless is as long as can be said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'a, 'py> FromPyObject<'a, 'py> for Seconds {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let seconds: f64 = match given.extract() {
            Ok(seconds) => seconds,
            Err(_) => match given.call_method0("total_seconds") {
                Ok(seconds) => seconds.extract()?,
                Err(_) => {
                    let message = format!("{given:?} is no length of time: give seconds, or a timedelta");
                    return Err(PyTypeError::new_err(message));
                }
            },
        };
        if seconds.is_nan() || seconds < 0.0 {
            let message = format!("{seconds} s is no length of time that can be waited");
            return Err(PyValueError::new_err(message));
        }
        Ok(Self(
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        ))
    }
}

/// As Python programs get it.
impl<'py> IntoPyObject<'py> for Seconds {
    type Target = pyo3::types::PyFloat;
    type Output = Bound<'py, Self::Target>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        let seconds = if self.0 == Duration::MAX {
            f64::INFINITY
        } else {
            self.0.as_secs_f64()
        };
        seconds.into_pyobject(py)
    }
}
