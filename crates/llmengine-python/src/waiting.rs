use std::pin::pin;
use std::time::Duration;

use pyo3::prelude::*;
use tokio::time::timeout;

use crate::engine::Engine;

/// How often the main thread looks whether somebody has pressed Ctrl-C.
const SIGNALS: Duration = Duration::from_millis(20);

/// Does the work in the calling thread, while others have the interpreter. A signal's exception drops the work.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    engine: &Engine,
    work: impl Future<Output = T> + Send,
) -> PyResult<T> {
    let mut work = pin!(work);
    if !is_main_thread(py)? {
        // Signals are the main thread's.
        return Ok(py.detach(|| engine.runtime.block_on(work)));
    }
    loop {
        let done = py.detach(|| {
            engine
                .runtime
                .block_on(async { timeout(SIGNALS, work.as_mut()).await })
        });
        if let Ok(done) = done {
            return Ok(done);
        }
        py.check_signals()?;
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    main.eq(threading.call_method0("get_ident")?)
}
