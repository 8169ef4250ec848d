use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llm_engine_overload::{Change, Engine, EngineSetup};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::Seen;
use crate::mock_engine::{Abort, FirstToken};

/// The engine by the real clock, and who waits for its answers.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Never held while something is waited for.
    state: Mutex<State>,
    /// Told when there is something to do again.
    work: Notify,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    random: fastrand::Rng,
    /// By the number by which the engine knows it, which is used again.
    answers: HashMap<usize, Answer>,
    next_key: u64,
    seen: Seen,
}

#[derive(Debug)]
struct Answer {
    key: u64,
    /// When its request came.
    came: Instant,
    pieces: UnboundedSender<Piece>,
    /// Tokens that its client has been sent.
    shown: u64,
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    Token,
    End,
}

/// Where a request is in the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    id: usize,
    key: u64,
}

/// What one step has done, to be told when it is over.
struct Step {
    ends: Instant,
    pieces: Vec<(UnboundedSender<Piece>, Piece)>,
}

impl Batch {
    pub(crate) fn new(setup: EngineSetup) -> Self {
        Self {
            state: Mutex::new(State {
                engine: Engine::new(setup),
                random: fastrand::Rng::with_seed(1),
                answers: HashMap::new(),
                next_key: 0,
                seen: Seen::default(),
            }),
            work: Notify::new(),
        }
    }

    /// Steps, for as long as it is polled. The end of each step is reckoned from that of the one before, so that what a
    /// timer is late by does not add up.
    pub(crate) async fn run(&self) {
        let mut now = Instant::now();
        loop {
            let Some(step) = self.state().step(now) else {
                self.work.notified().await;
                now = Instant::now();
                continue;
            };
            now = step.ends;
            sleep_until(now).await;
            // A step that is late already does not wait, and would let nobody else in.
            yield_now().await;
            let late = now.elapsed();
            let mut state = self.state();
            state.seen.late = state.seen.late.max(late);
            drop(state);
            for (answer, piece) in step.pieces {
                // Its client may have hung up during the step.
                let _ = answer.send(piece);
            }
        }
    }

    /// A request has come; it reaches the engine after this time.
    pub(crate) fn arrive(&self) -> Duration {
        let state = &mut *self.state();
        state.seen.requests += 1;
        let base = state.engine.draw_base_seconds(&mut state.random);
        Duration::from_secs_f64(base.max(0.0))
    }

    /// A request has reached the engine.
    pub(crate) fn submit(
        &self,
        came: Instant,
        input: u64,
        output: u64,
        pieces: UnboundedSender<Piece>,
    ) -> Place {
        let state = &mut *self.state();
        let id = state.engine.submit(input, output);
        let key = state.next_key;
        state.next_key += 1;
        let answer = Answer {
            key,
            came,
            pieces,
            shown: 0,
        };
        state.answers.insert(id, answer);
        self.work.notify_one();
        Place { id, key }
    }

    /// A request's client has hung up. It has no place if it has not reached the engine.
    pub(crate) fn abort(&self, place: Option<Place>) {
        let state = &mut *self.state();
        let is_there = |place: &Place| {
            let answer = state.answers.get(&place.id);
            answer.is_some_and(|answer| answer.key == place.key)
        };
        let place = place.filter(is_there);
        let written = place.map(|place| state.engine.written(place.id));
        if let Some(place) = place {
            state.answers.remove(&place.id);
            state.engine.abort(place.id);
        }
        state.seen.aborts.push(Abort {
            at: Instant::now(),
            written,
        });
    }

    pub(crate) fn change(&self, change: Change) {
        self.state().engine.change(change);
    }

    pub(crate) fn base_seconds(&self) -> f64 {
        self.state().engine.base_seconds()
    }

    pub(crate) fn seen(&self) -> Seen {
        let state = self.state();
        Seen {
            running: state.answers.len(),
            preemptions: state.engine.preemptions,
            ..state.seen.clone()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A step that begins now; `None` if there is nothing to do.
    fn step(&mut self, now: Instant) -> Option<Step> {
        let step = self.engine.step();
        if step.seconds <= 0.0 {
            return None;
        }
        let ends = now + Duration::from_secs_f64(step.seconds);
        let mut pieces = Vec::with_capacity(self.answers.len());
        for id in step.first {
            if let Some(answer) = self.answers.get_mut(&id) {
                answer.shown = 1;
                self.seen.first_tokens.push(FirstToken {
                    at: ends,
                    after: ends.duration_since(answer.came),
                });
                pieces.push((answer.pieces.clone(), Piece::Token));
            }
        }
        for (id, answer) in &mut self.answers {
            // The first token was shown when its prompt had been read.
            if self.engine.written(*id) > answer.shown {
                answer.shown += 1;
                pieces.push((answer.pieces.clone(), Piece::Token));
            }
        }
        for id in step.ended {
            self.engine.forget(id);
            if let Some(answer) = self.answers.remove(&id) {
                pieces.push((answer.pieces, Piece::End));
            }
        }
        Some(Step { ends, pieces })
    }
}
