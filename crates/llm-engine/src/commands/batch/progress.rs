//! How far a run has come, on stderr: a bar on a terminal, a plain line now and then elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use llm_engine_batch::Tally;
use llm_engine_client::batch::Sender;

/// Over how long a pace is measured.
const PACE_OVER: Duration = Duration::from_secs(10);
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    /// What is to be done in all: all rows, or as many as are sampled.
    rows: u64,
    /// How many had ended, and their tokens, at these times.
    past: VecDeque<(Instant, u64, u64)>,
    next_line_at: Instant,
    last: Tally,
}

impl Progress {
    pub(super) fn new(tally: &Tally, sample: Option<u64>) -> Self {
        let rows = sample.unwrap_or(tally.rows).min(tally.rows);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(rows);
            let style = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            rows,
            past: VecDeque::new(),
            next_line_at: Instant::now() + PLAIN_LINE_EVERY,
            last: tally.clone(),
        }
    }

    pub(super) fn show(&mut self, tally: &Tally, sender: &Sender) {
        let now = Instant::now();
        self.last = tally.clone();
        self.past.push_back((now, tally.ended, tally.usage.tokens()));
        while self.past.len() > 1 && now - self.past[0].0 > PACE_OVER {
            self.past.pop_front();
        }
        let words = self.words(tally, sender, now);
        if let Some(bar) = &self.bar {
            bar.set_position(tally.ended);
            bar.set_message(words);
        } else if now >= self.next_line_at {
            self.next_line_at = now + PLAIN_LINE_EVERY;
            eprintln!(
                "{} of {} rows, {words}",
                HumanCount(tally.ended),
                HumanCount(self.rows)
            );
        }
    }

    fn words(&self, tally: &Tally, sender: &Sender, now: Instant) -> String {
        let (then, ended, tokens) = self.past[0];
        let seconds = (now - then).as_secs_f64().max(0.001);
        let pace = tally.ended.saturating_sub(ended) as f64 / seconds;
        let token_pace = tally.usage.tokens().saturating_sub(tokens) as f64 / seconds;
        let mut words = format!("{pace:.1} rows/s, {token_pace:.0} tokens/s");
        if tally.usage.nano_usd > 0 {
            words += &format!(", ${:.2}", tally.usage.nano_usd as f64 / 1e9);
        }
        for (count, name) in [
            (tally.failed, "errors"),
            (sender.refusals(), "refusals"),
            (tally.failed_attempts, "failed attempts"),
        ] {
            if count > 0 {
                words += &format!(", {} {name}", HumanCount(count));
            }
        }
        if let Some((lasts, what)) = &tally.outage {
            words += &format!("; no answers for {} s: {what}", lasts.as_secs());
        } else if pace > 0.0 {
            let left = self.rows.saturating_sub(tally.ended) as f64 / pace;
            let left = Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX);
            words += &format!(", {} left", humantime::format_duration(left));
        }
        words
    }

    pub(super) fn last(&self) -> &Tally {
        &self.last
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
