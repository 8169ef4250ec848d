use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a deployment has to do now, and how long it takes until it begins with more.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requests: usize,
    /// Tokens of prompts, and those that answers may have.
    tokens: u64,
    /// Seconds until an answer begins: an exponential average.
    seconds: Option<f64>,
    /// Since when nothing is there.
    idle_since: Option<Instant>,
}

/// A request that is with a deployment until this is dropped.
#[derive(Debug)]
pub(crate) struct Burden {
    load: Arc<Load>,
    tokens: u64,
    since: Instant,
}

/// Of a new measurement.
const WEIGHT: f64 = 0.2;
/// A deployment that was slow gets requests again after some times as long, or it would never be seen to be fast.
const FORGOTTEN: Duration = Duration::from_millis(2_500);

impl Load {
    /// A measure of how long a request with so many tokens would wait there, to be compared between deployments: how long others
    /// wait, times the tokens that are there. Who answers as fast gets as many, who is slow gets less.
    pub(crate) fn expected_wait(&self, tokens: u64) -> f64 {
        let state = self.0.lock();
        let idle = state.idle_since.map_or(Duration::ZERO, |since| since.elapsed());
        let known = state.seconds.unwrap_or(0.0);
        let seconds = known * (-idle.as_secs_f64() / FORGOTTEN.as_secs_f64()).exp();
        // Of those of which nothing is known the one that has less to do.
        float(state.tokens + tokens) * seconds.max(1e-9)
    }

    /// A request is sent there.
    pub(crate) fn add(self: &Arc<Self>, tokens: u64) -> Burden {
        let mut state = self.0.lock();
        state.requests += 1;
        state.tokens += tokens;
        state.idle_since = None;
        Burden {
            load: Arc::clone(self),
            tokens,
            since: Instant::now(),
        }
    }

    /// Requests that are there now.
    pub(crate) fn requests(&self) -> usize {
        self.0.lock().requests
    }
}

impl Burden {
    /// Its answer has begun.
    pub(crate) fn begun(&self) {
        let measured = self.since.elapsed().as_secs_f64();
        let mut state = self.load.0.lock();
        let before = state.seconds.unwrap_or(measured);
        state.seconds = Some(before + WEIGHT * (measured - before));
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        let mut state = self.load.0.lock();
        state.requests -= 1;
        state.tokens -= self.tokens;
        if state.requests == 0 {
            state.idle_since = Some(Instant::now());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn float(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn measure(load: &Arc<Load>, seconds: u64) {
        let burden = load.add(100);
        advance(Duration::from_secs(seconds)).await;
        burden.begun();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_less_to_do_or_is_faster_is_expected_to_begin_sooner() {
        let [idle, busy] = [(); 2].map(|()| Arc::<Load>::default());
        let _burden = busy.add(500);
        assert!(idle.expected_wait(10) < busy.expected_wait(10));
        let [fast, slow] = [(); 2].map(|()| Arc::<Load>::default());
        measure(&fast, 1).await;
        measure(&slow, 20).await;
        let _more = fast.add(500);
        assert!(fast.expected_wait(100) < slow.expected_wait(100));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_slow_is_tried_again_but_not_while_it_does_not_answer() {
        let [fast, slow] = [(); 2].map(|()| Arc::<Load>::default());
        measure(&fast, 1).await;
        measure(&slow, 20).await;
        let hung = slow.add(100);
        advance(Duration::from_secs(60)).await;
        let _busy = fast.add(500);
        assert!(fast.expected_wait(100) < slow.expected_wait(100));
        drop(hung);
        advance(Duration::from_secs(8)).await;
        assert!(slow.expected_wait(100) < fast.expected_wait(100));
        assert_eq!((slow.requests(), fast.requests()), (0, 1));
    }
}
