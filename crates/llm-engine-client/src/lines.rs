use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::line::Line;

/// Whose calls stand in the same line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LineKey {
    pub(crate) base_url: String,
    pub(crate) api_key_digest: [u8; 32],
    pub(crate) model: String,
}

/// All lines of this process. They outlive the clients, because what a server has said holds for the next one too.
static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(Mutex::default);

/// With more than this, those that nobody stands in are forgotten, the longest unused first.
const MOST: usize = 1024;

#[derive(Default)]
struct Lines {
    lines: HashMap<LineKey, Entry>,
    /// Goes up with each use.
    uses: u64,
}

struct Entry {
    line: Arc<Line>,
    last_use: u64,
}

/// The line of these calls.
pub(crate) fn line(key: LineKey) -> Arc<Line> {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.line(key)
}

impl Lines {
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
        let mut lines = Lines::default();
        let first = lines.line(key(0));
        assert!(Arc::ptr_eq(&first, &lines.line(key(0))));
        for number in 1..10 * MOST {
            lines.line(key(number));
        }
        assert!(lines.lines.len() <= MOST);
        assert!(Arc::ptr_eq(&first, &lines.line(key(0))), "somebody stands in it");
    }
}
