use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes all recordings have.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    /// Of one caller.
    most_of_one: usize,
    used: AtomicUsize,
}

/// What the recordings of one caller have of it.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<Memory>,
    used: AtomicUsize,
}

/// Whose memory is used up, so whose answers have to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The caller's share: its own.
    Share,
    /// All of it: anybody's.
    Memory,
}

impl Memory {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most,
            most_of_one,
            used: AtomicUsize::new(0),
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory,
            used: AtomicUsize::new(0),
        }
    }

    /// Whether so much may be taken. Others may take it before it is: that is at most a piece for each of them.
    pub(super) fn room_for(&self, bytes: usize) -> Result<(), Full> {
        let fits = |used: &AtomicUsize, most| used.load(Ordering::Relaxed).saturating_add(bytes) <= most;
        if !fits(&self.used, self.memory.most_of_one) {
            return Err(Full::Share);
        }
        if !fits(&self.memory.used, self.memory.most) {
            return Err(Full::Memory);
        }
        Ok(())
    }

    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.memory.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
