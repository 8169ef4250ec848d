use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that nobody wants the rest of an answer. The engine looks at it between decode steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    pub(crate) fn set(&self) {
        // Relaxed: the flag carries no other memory with it, and the engine looks again at each step.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cancels when it is dropped, however the connection ended. Dropping it after the last token changes nothing.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(pub(crate) CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}
