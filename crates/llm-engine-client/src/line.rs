use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llm_engine_retry::{Budget, Departure, Gate, Hint, Leave, Limits};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The line in which all calls with one API key to one model of one server stand, and what they know together.
///
/// Who is first holds `head` and waits for its time; the others wait for `head`, in the order in which they came. So a call
/// that waits costs a place in a queue and no timer, and one that is dropped has left the line.
pub(crate) struct Line {
    /// What the durations of the gate and of the budget are counted from.
    epoch: Instant,
    /// Held for a few instructions at a time, never while something is waited for.
    state: Mutex<State>,
    head: tokio::sync::Mutex<()>,
    /// Tells the first in line that there is a verdict. Nobody else waits for it.
    verdict: Notify,
}

#[derive(Default)]
struct State {
    gate: Gate,
    budget: Budget,
}

/// That a call has left. The verdict goes back through it; dropped without one, there was none.
pub(crate) struct Pass {
    line: Arc<Line>,
    departure: Option<Departure>,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            state: Mutex::default(),
            head: tokio::sync::Mutex::new(()),
            verdict: Notify::new(),
        }
    }

    /// The time, for everything that is decided about this line.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// For how long from now nobody leaves.
    pub(crate) fn held_for(&self) -> Duration {
        let now = self.now();
        self.state().gate.held_until().saturating_sub(now)
    }

    /// Waits until it is the caller's turn; at once, says for how long nobody leaves if that is longer than the caller has.
    ///
    /// If the server has asked for more than `longest_wait`, whoever comes may ask it again: by then it may think otherwise,
    /// and if it does not, the call fails with what it says.
    pub(crate) async fn leave(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        longest_wait: Duration,
    ) -> Result<Pass, Duration> {
        let without_waiting = |until: Duration| {
            let held = until.saturating_sub(self.now());
            if held > longest_wait {
                return Some(Ok(self.leave_booked()));
            }
            let left = deadline?.saturating_duration_since(Instant::now());
            (held >= left).then_some(Err(held))
        };
        let held_until = self.state().gate.held_until();
        if let Some(left) = without_waiting(held_until) {
            return left;
        }
        let _head = self.head.lock().await;
        loop {
            let now = self.now();
            let leave = self.state().gate.ask(now);
            match leave {
                Leave::Now(departure) => return Ok(self.pass(departure)),
                // A verdict that came in between has left its notice.
                Leave::AfterVerdict => self.verdict.notified().await,
                Leave::At(at) => {
                    if let Some(left) = without_waiting(at) {
                        return left;
                    }
                    tokio::select! {
                        () = sleep_until(self.epoch + at) => {}
                        () = self.verdict.notified() => {}
                    }
                }
            }
        }
    }

    /// Passes the line: the server keeps a place for this call, at this time.
    pub(crate) fn leave_booked(self: &Arc<Self>) -> Pass {
        let now = self.now();
        let departure = self.state().gate.leave_booked(now);
        self.pass(departure)
    }

    pub(crate) fn count_request(&self) {
        let now = self.now();
        self.state().budget.request(now);
    }

    pub(crate) fn with_budget<T>(&self, work: impl FnOnce(&mut Budget) -> T) -> T {
        work(&mut self.state().budget)
    }

    fn pass(self: &Arc<Self>, departure: Departure) -> Pass {
        Pass {
            line: self.clone(),
            departure: Some(departure),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in there is half done when a thread panics, only not counted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The server has let it in, whatever comes of it.
    pub(crate) fn admitted(self, limits: Option<Limits>) {
        self.end(|gate, now, departure| gate.admitted(now, departure, limits));
    }

    /// The server has sent it away because there are too many.
    pub(crate) fn refused(self, hint: Option<Hint>, limits: Option<Limits>) {
        self.end(|gate, now, departure| gate.refused(now, departure, hint, limits));
    }

    fn end(mut self, verdict: impl FnOnce(&mut Gate, Duration, Departure)) {
        if let Some(departure) = self.departure.take() {
            let now = self.line.now();
            verdict(&mut self.line.state().gate, now, departure);
            self.line.verdict.notify_one();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(departure) = self.departure.take() {
            self.line.state().gate.failed(departure);
            self.line.verdict.notify_one();
        }
    }
}
