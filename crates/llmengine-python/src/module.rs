use pyo3::pymodule;

/// Everything that Python sees of this crate.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::attempts::{Attempt, Attempts};
    #[pymodule_export]
    use crate::backoff::{Backoff, Waits};
    #[pymodule_export]
    use crate::budget::Budget;
    #[pymodule_export]
    use crate::call::{Answer, Call, Running};
    #[pymodule_export]
    use crate::engine::{flush, stop_deliveries};
    #[pymodule_export]
    use crate::events::Events;
    #[pymodule_export]
    use crate::hint::hint_from_headers;
    #[pymodule_export]
    use crate::line::Line;
    #[pymodule_export]
    use crate::random::reseed;
    #[pymodule_export]
    use crate::stop::Stop;

    #[pymodule_init]
    fn version(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
