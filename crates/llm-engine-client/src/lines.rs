use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::line::Line;

/// Whose calls stand in the same line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LineKey {
    pub(crate) base_url: String,
    pub(crate) api_key_digest: [u8; 32],
    pub(crate) model: String,
}

/// The lines in which calls stand: one for the calls of one API key to one model of one server. Clones are the same lines.
///
/// All clients of a process share [`Lines::of_process`] unless they are given others, because they call the same servers and what
/// one of them is told holds for all. Lines outlive the clients.
///
/// Others are for who must not wait for what another part of the process has been told, and for a process that was forked: a lock
/// that a thread of its parent held at that moment is never released in it, so it needs lines that are its own.
///
/// ```
/// use llm_engine_client::{Client, Lines};
///
/// let lines = Lines::new();
/// let one = Client::builder("http://127.0.0.1:5000").lines(lines.clone()).build()?;
/// // Stands in the same lines as the first one, and in none with the rest of the process.
/// let other = Client::builder("http://127.0.0.1:5000").lines(lines).build()?;
/// # Ok::<_, llm_engine_client::BuildError>(())
/// ```
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Known>>);

static OF_PROCESS: LazyLock<Lines> = LazyLock::new(Lines::default);

/// With more than this, those that nobody stands in are forgotten, the longest unused first.
const MOST: usize = 1024;

#[derive(Default)]
struct Known {
    lines: HashMap<LineKey, Entry>,
    /// Goes up with each use.
    uses: u64,
}

struct Entry {
    line: Arc<Line>,
    last_use: u64,
}

impl Lines {
    /// Lines in which nobody stands yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of all clients that are given no others.
    ///
    /// ```
    /// use llm_engine_client::{Client, Lines};
    ///
    /// // The same as saying nothing.
    /// let client = Client::builder("http://127.0.0.1:5000").lines(Lines::of_process()).build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn of_process() -> Self {
        OF_PROCESS.clone()
    }

    /// The line of these calls.
    pub(crate) fn line(&self, key: LineKey) -> Arc<Line> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.line(key)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Known {
    fn line(&mut self, key: LineKey) -> Arc<Line> {
        self.uses += 1;
        let last_use = self.uses;
        if let Some(entry) = self.lines.get_mut(&key) {
            entry.last_use = last_use;
            return entry.line.clone();
        }
        if self.lines.len() >= MOST {
            self.forget_half();
        }
        let line = Arc::new(Line::new());
        let entry = Entry {
            line: line.clone(),
            last_use,
        };
        self.lines.insert(key, entry);
        line
    }

    /// Half of them at once, so that it is seldom done.
    fn forget_half(&mut self) {
        let idle = |entry: &Entry| Arc::strong_count(&entry.line) == 1;
        let mut uses: Vec<u64> = self
            .lines
            .values()
            .filter(|entry| idle(entry))
            .map(|entry| entry.last_use)
            .collect();
        uses.sort_unstable();
        let Some(&middle) = uses.get(uses.len() / 2) else {
            return;
        };
        self.lines
            .retain(|_, entry| !idle(entry) || entry.last_use > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> LineKey {
        LineKey {
            base_url: "http://h".to_owned(),
            api_key_digest: [0; 32],
            model: number.to_string(),
        }
    }

    #[test]
    fn the_same_calls_share_a_line_and_idle_lines_are_forgotten() {
        let mut lines = Known::default();
        let first = lines.line(key(0));
        assert!(Arc::ptr_eq(&first, &lines.line(key(0))));
        for number in 1..10 * MOST {
            lines.line(key(number));
        }
        assert!(lines.lines.len() <= MOST);
        assert!(Arc::ptr_eq(&first, &lines.line(key(0))), "somebody stands in it");
    }
}
