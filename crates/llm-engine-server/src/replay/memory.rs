use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes all recordings have.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    used: AtomicUsize,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            used: AtomicUsize::new(0),
        }
    }

    /// Whether so much may be taken. Others may take it before it is: that is at most a piece for each of them.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.most
    }

    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
