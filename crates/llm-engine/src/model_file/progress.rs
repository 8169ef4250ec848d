//! How far a long step has come, on stderr: a bar on a terminal, a few plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

const REDRAW_INTERVAL: Duration = Duration::from_millis(120);
const PLAIN_STEP_PERCENT: u64 = 25;
const PLAIN_STEP_BYTES: u64 = 25_000_000;

/// One step, from `start` to `finish`; dropped before, it leaves no bar behind.
pub(super) struct Progress {
    what: String,
    total: Option<u64>,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    /// Elsewhere: the position at which the next line is due.
    next_line_at: u64,
}

impl Progress {
    pub(super) fn start(what: &str, total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length().with_message(what.to_owned());
            bar.set_style(style("{spinner} {msg}: {decimal_bytes} {decimal_bytes_per_sec}"));
            bar.enable_steady_tick(REDRAW_INTERVAL);
            bar
        });
        if bar.is_none() {
            eprintln!("{what}");
        }
        let mut progress = Self {
            what: what.to_owned(),
            total: None,
            bar,
            next_line_at: PLAIN_STEP_BYTES,
        };
        if let Some(total) = total {
            progress.expect(total);
        }
        progress
    }

    /// The size became known.
    pub(super) fn expect(&mut self, total: u64) {
        self.total = Some(total);
        self.next_line_at = line_step(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(style(
                "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {eta}",
            ));
        }
    }

    /// `position` bytes are done.
    pub(super) fn reach(&mut self, position: u64) {
        let position = position.min(self.total.unwrap_or(u64::MAX));
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if position >= self.next_line_at {
            let step = self.total.map_or(PLAIN_STEP_BYTES, line_step);
            self.next_line_at = (position / step + 1) * step;
            let (what, done) = (&self.what, DecimalBytes(position));
            match self.total {
                Some(total) => eprintln!("{what}: {done} of {}", DecimalBytes(total)),
                None => eprintln!("{what}: {done}"),
            }
        }
    }

    pub(super) fn finish(self) {
        drop(self);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line_step(total: u64) -> u64 {
    (total / 100)
        .saturating_mul(PLAIN_STEP_PERCENT)
        .max(PLAIN_STEP_BYTES)
}

/// A template with a mistake in it costs its looks, not the download.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
