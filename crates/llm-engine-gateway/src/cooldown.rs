use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Until when a deployment does not want to be asked.
///
/// While it lasts nothing is sent there. Who is refused meanwhile is told a time of its own: the first one the very end,
/// those after it a little later each, so that they don't come back all at once.
#[derive(Debug, Default)]
pub(crate) struct Cooldown(Mutex<Option<Pause>>);

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// How far apart the times are that are told.
    step: Duration,
    told: u32,
}

/// Over so many callers the times are spread, and over so long as the wait itself was.
const SPREAD: u32 = 64;
/// A minute's wait does not become two.
const LONGEST_STEP: Duration = Duration::from_millis(100);

impl Cooldown {
    /// It said to come back after this. Returns what the caller of the request is told.
    pub(crate) fn begin(&self, wait: Duration) -> Duration {
        let now = Instant::now();
        let mut pause = self.0.lock();
        let asked = now + wait;
        let pause = match &mut *pause {
            // Others that were under way at the same time are told the same.
            Some(pause) if pause.until > now => {
                pause.until = pause.until.max(asked);
                pause
            }
            over => over.insert(Pause {
                until: asked,
                step: (wait / SPREAD).min(LONGEST_STEP),
                told: 0,
            }),
        };
        pause.tell(now)
    }

    /// When it ends, if it lasts.
    pub(crate) fn until(&self) -> Option<Instant> {
        let until = self.0.lock().as_ref()?.until;
        (until > Instant::now()).then_some(until)
    }

    /// What a caller is told who comes now; `None` if the deployment can be asked.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let mut pause = self.0.lock();
        let lasting = pause.as_mut()?;
        let now = Instant::now();
        if lasting.until > now {
            return Some(lasting.tell(now));
        }
        *pause = None;
        None
    }
}

impl Pause {
    fn tell(&mut self, now: Instant) -> Duration {
        let after = self.step * (self.told % SPREAD);
        self.told = self.told.wrapping_add(1);
        self.until - now + after
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn it_lasts_as_long_as_it_was_told_and_not_longer() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.remaining(), None);
        assert_eq!(cooldown.begin(Duration::from_secs(2)), Duration::from_secs(2));
        advance(Duration::from_secs(2) - MILLISECOND).await;
        assert!(cooldown.remaining().is_some());
        advance(MILLISECOND).await;
        assert_eq!(cooldown.remaining(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_meanwhile_are_told_times_of_their_own_after_it() {
        let cooldown = Cooldown::default();
        let wait = Duration::from_secs(2);
        let mut told = vec![cooldown.begin(wait)];
        told.extend((0..63).filter_map(|_| cooldown.remaining()));
        assert_eq!(told.len(), 64);
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        assert!(
            told.iter().all(|told| (wait..2 * wait).contains(told)),
            "{told:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_of_several_hints_counts() {
        let cooldown = Cooldown::default();
        cooldown.begin(Duration::from_secs(2));
        cooldown.begin(Duration::from_secs(5));
        cooldown.begin(Duration::from_secs(1));
        advance(Duration::from_secs(5) - MILLISECOND).await;
        assert!(cooldown.remaining().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_of_nothing_stops_nobody() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.begin(Duration::ZERO), Duration::ZERO);
        assert_eq!(cooldown.remaining(), None);
    }
}
