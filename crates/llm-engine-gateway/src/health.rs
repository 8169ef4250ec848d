use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Failure;

/// Whether a deployment delivers.
///
/// One that fails again and again is *ejected*: nothing is sent there for a second, and longer each time, up to
/// [`LONGEST`]. Then one request at a time tries it, until one is answered. Being full is no failure: who says 429 has a
/// [`Cooldown`](crate::cooldown::Cooldown) of its own.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures since it was last answered by.
    failures: u32,
    /// Whether one of them was an answer: then it is there, and only does what it does badly.
    has_answered: bool,
    /// Set as soon as it is ejected.
    ejected: Option<Ejected>,
}

#[derive(Debug)]
struct Ejected {
    until: Instant,
    times: u32,
    /// Whether somebody tries it.
    is_tried: bool,
}

/// A request that is sent to a deployment. Dropped before anything is known, it has neither succeeded nor failed.
#[derive(Debug)]
pub(crate) struct Trial {
    health: Arc<Health>,
    /// Whether it tries an ejected deployment, so that what becomes of it is news.
    is_news: bool,
}

/// So many failures in a row are no chance.
const FAILURES: u32 = 3;
const SHORTEST: Duration = Duration::from_secs(1);
/// A deployment that has recovered is used again at the latest after about so long.
const LONGEST: Duration = Duration::from_secs(5);

impl Health {
    /// Whether a request may be sent there, and else when to ask again. `has_others`: another deployment would do; a deployment that
    /// gives bad answers is better than none.
    pub(crate) fn try_it(self: &Arc<Self>, has_others: bool) -> Result<Trial, Instant> {
        let mut state = self.0.lock();
        let is_spared = !has_others && state.has_answered;
        let is_news = match &mut state.ejected {
            None => false,
            Some(_) if is_spared => true,
            Some(ejected) => {
                let now = Instant::now();
                if ejected.until > now {
                    return Err(ejected.until);
                }
                if ejected.is_tried {
                    return Err(now + SHORTEST);
                }
                ejected.is_tried = true;
                true
            }
        };
        Ok(Trial {
            health: Arc::clone(self),
            is_news,
        })
    }

    /// Whether nothing is sent there now but what tries it.
    pub(crate) fn is_ejected(&self) -> bool {
        self.0.lock().ejected.is_some()
    }
}

impl Trial {
    /// Its answer has begun: it is used again, and not trusted before there is a whole one.
    pub(crate) fn began(&self) {
        let mut state = self.health.0.lock();
        if self.is_news && state.ejected.take().is_some() {
            state.failures = FAILURES - 1;
        }
    }

    /// It has answered.
    pub(crate) fn succeeded(&self) {
        let mut state = self.health.0.lock();
        // What was sent before it was ejected is no news.
        if self.is_news || state.ejected.is_none() {
            *state = State::default();
        }
    }

    /// It has not. Returns whether that has it ejected now.
    pub(crate) fn failed(&self, failure: &Failure) -> bool {
        let has_answered = match failure {
            Failure::Unreachable(_) | Failure::TimedOut(_) => false,
            Failure::Broken(_) | Failure::Misconfigured(_) => true,
            // It is well: it was the request, or too many of them, or we who ended it.
            Failure::Rejected { .. } => {
                self.succeeded();
                return false;
            }
            Failure::Limited { .. } | Failure::CutOff => return false,
        };
        let mut state = self.health.0.lock();
        state.failures += 1;
        state.has_answered = has_answered;
        let times = match &state.ejected {
            None if state.failures < FAILURES => return false,
            None => 0,
            // What was sent before is no news.
            Some(_) if !self.is_news => return false,
            Some(ejected) => ejected.times + 1,
        };
        state.ejected = Some(Ejected {
            until: Instant::now() + (SHORTEST * 2_u32.pow(times.min(8))).min(LONGEST),
            times,
            is_tried: false,
        });
        times == 0
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.is_news
            && let Some(ejected) = &mut self.health.0.lock().ejected
        {
            ejected.is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn down() -> Failure {
        Failure::Unreachable("gone".to_owned())
    }

    fn fail(health: &Arc<Health>, times: u32) {
        for _ in 0..times {
            health.try_it(true).unwrap().failed(&down());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_eject_and_two_with_a_success_between_do_not() {
        let health = Arc::<Health>::default();
        fail(&health, 2);
        health.try_it(true).unwrap().succeeded();
        fail(&health, 2);
        assert!(!health.is_ejected());
        fail(&health, 1);
        assert!(health.is_ejected());
        assert_eq!(health.try_it(true).unwrap_err(), Instant::now() + SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_tries_it_and_who_goes_leaves_that_to_the_next() {
        let health = Arc::<Health>::default();
        fail(&health, 3);
        advance(SHORTEST).await;
        let first = health.try_it(true).unwrap();
        health.try_it(true).unwrap_err();
        drop(first);
        let second = health.try_it(true).unwrap();
        second.succeeded();
        assert!(!health.is_ejected());
        drop((health.try_it(true).unwrap(), health.try_it(true).unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_left_alone_for_longer_each_time_but_not_for_long() {
        let health = Arc::<Health>::default();
        fail(&health, 3);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let until = health.try_it(true).unwrap_err();
            pauses.push((until - Instant::now()).as_secs());
            advance(until - Instant::now()).await;
            assert!(!health.try_it(true).unwrap().failed(&down()));
        }
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn being_full_is_no_failure_and_a_refused_request_is_an_answer() {
        let health = Arc::<Health>::default();
        let full = Failure::Limited {
            retry_after: Duration::from_secs(1),
        };
        let rejected = Failure::Rejected {
            message: String::new(),
            code: None,
            param: None,
        };
        fail(&health, 2);
        for _ in 0..5 {
            health.try_it(true).unwrap().failed(&full);
        }
        health.try_it(true).unwrap().failed(&rejected);
        fail(&health, 2);
        assert!(!health.is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_is_ejected_only_if_it_does_not_answer_at_all() {
        let bad = Arc::<Health>::default();
        for _ in 0..3 {
            bad.try_it(true)
                .unwrap()
                .failed(&Failure::Broken("500".to_owned()));
        }
        bad.try_it(true).unwrap_err();
        bad.try_it(false).unwrap().succeeded();
        assert!(!bad.is_ejected());
        let gone = Arc::<Health>::default();
        fail(&gone, 3);
        gone.try_it(false).unwrap_err();
    }
}
