use std::time::Duration;

use llm_engine_limit::Time;

/// How much work the models get done per second while there is enough of it: an exponential average that is only taken
/// where they were busy, so that a quiet hour does not make them look slow.
#[derive(Debug)]
pub(crate) struct Drain {
    per_second: Option<f64>,
    /// Since the last measurement.
    done: u64,
    since: Time,
}

/// Shorter than this, single answers would show.
const WINDOW: Duration = Duration::from_secs(1);
/// Of a new measurement: what requests happen to be long shows for some seconds, and times are promised for a minute ahead.
const WEIGHT: f64 = 0.02;

impl Drain {
    pub(crate) fn new() -> Self {
        Self {
            per_second: None,
            done: 0,
            since: Time::ZERO,
        }
    }

    /// So much has been done.
    pub(crate) fn add(&mut self, work: u64) {
        self.done = self.done.saturating_add(work);
    }

    /// To be called often.
    pub(crate) fn look(&mut self, now: Time, is_busy: bool) {
        let elapsed = now.since(self.since);
        if elapsed < WINDOW {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an average")]
        let measured = self.done as f64 / elapsed.as_secs_f64();
        // The first one is taken when there is something to measure.
        if is_busy && (self.done > 0 || self.per_second.is_some()) {
            let average = self.per_second.unwrap_or(measured);
            self.per_second = Some(average + WEIGHT * (measured - average));
        }
        self.done = 0;
        self.since = now;
    }

    /// How long so much work takes. `None` before anything was measured.
    pub(crate) fn time_for(&self, work: u64) -> Option<Duration> {
        let per_second = self.per_second?.max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = work as f64 / per_second;
        // A year is as good as never.
        Some(Duration::from_secs_f64(seconds.min(3e7)))
    }

    /// How much work is done in a time. 0 before anything was measured.
    pub(crate) fn work_in(&self, time: Duration) -> u64 {
        let work = self.per_second.unwrap_or(0.0) * time.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let work = work as u64;
        work
    }

    pub(crate) fn per_second(&self) -> Option<f64> {
        self.per_second
    }
}
