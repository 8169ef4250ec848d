use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use llm_engine_admission::{
    Admission, AdmissionSetup, Arrival, Class, Limit, Place as AdmittedPlace, Queued, Request, Saturated,
    Standing, Turn,
};
use llm_engine_limit::Time;
use llm_engine_wire::openai::Usage;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Refusal;
use crate::metrics::ModelMetrics;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    /// A row of a batch: it waits until nobody else does, for as long as that takes, and rows together leave a quarter of the
    /// places free.
    Batch,
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Interactive => Self::Interactive,
            Priority::Batch => Self::Batch,
        }
    }
}

/// What may be with a model's deployments, and what waits in front of them: the [`Admission`] with the clock, the lock and the
/// wake-ups that it does not have itself.
#[derive(Debug)]
pub(crate) struct Pool {
    model: String,
    /// Whether it is found out how much they can take.
    pub(crate) is_adaptive: bool,
    /// Held for a few look-ups in trees, never across an await, and never while a [`Place`] is dropped.
    state: Mutex<State>,
    epoch: Instant,
    metrics: Arc<ModelMetrics>,
    /// Told when something has begun to wait, so that the time for its turn is looked at.
    queued: Notify,
}

#[derive(Debug)]
struct State {
    admission: Admission,
    waiting: HashMap<Queued, oneshot::Sender<Result<Place, Saturated>>>,
}

/// What a [`Pool`] is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolSetup {
    pub(crate) is_adaptive: bool,
    /// The most requests at a time. `None`: no bound.
    pub(crate) most: Option<NonZeroU32>,
    pub(crate) wait: Duration,
    pub(crate) queue: usize,
}

/// A place among the requests that are with the deployments, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    /// `None` once it is given back.
    place: Option<AdmittedPlace>,
    usage: Usage,
    /// The tokens of its answer that the admission knows of.
    told: u64,
}

/// How much longer who comes at its time may wait.
const BOOKED_WAIT: Duration = Duration::from_secs(1);
/// Often enough that the tokens in flight are known, and seldom enough that streams don't meet at the lock.
const TOLD_TOKENS: u64 = 8;

impl Pool {
    pub(crate) fn new(model: &str, setup: PoolSetup, metrics: Arc<ModelMetrics>) -> Self {
        let most = setup.most.unwrap_or(NonZeroU32::MAX);
        let limit = if setup.is_adaptive {
            Limit::Adaptive { most }
        } else {
            Limit::Fixed(most)
        };
        let admission = Admission::new(AdmissionSetup {
            limit,
            wait: setup.wait,
            booked_wait: setup.wait.saturating_add(BOOKED_WAIT),
            queue: setup.queue,
        });
        let state = State {
            admission,
            waiting: HashMap::new(),
        };
        Self {
            model: model.to_owned(),
            is_adaptive: setup.is_adaptive,
            state: Mutex::new(state),
            epoch: Instant::now(),
            metrics,
            queued: Notify::new(),
        }
    }

    /// A place, at once or when it is the request's turn.
    pub(crate) async fn place(self: &Arc<Self>, request: Request) -> Result<Place, Refusal> {
        let arrival = self.tell(|state, now| {
            Ok(match state.admission.arrive(now, &request)? {
                Arrival::Place(place) => Ok(self.taken(place)),
                Arrival::Queued(queued) => {
                    let (sender, turn) = oneshot::channel();
                    state.waiting.insert(queued, sender);
                    Err((queued, turn))
                }
            })
        });
        let turn = match arrival {
            Ok(Ok(place)) => return Ok(place),
            Ok(Err((queued, turn))) => {
                let _waiting = Waiting { pool: self, queued };
                self.queued.notify_one();
                // The other end is kept until there is something to say.
                turn.await.expect("it is told of its turn")
            }
            Err(saturated) => Err(saturated),
        };
        turn.map_err(|saturated| self.refusal(saturated))
    }

    /// Gives turns that time brings about, until it is told to stop.
    pub(crate) async fn give_turns(self: Arc<Self>, stop: CancellationToken) {
        let turns = async {
            loop {
                let next = self.tell(|state, _| state.admission.next_turn());
                match next {
                    Some(next) => {
                        let _ = timeout_at(self.instant(next), self.queued.notified()).await;
                    }
                    None => self.queued.notified().await,
                }
            }
        };
        stop.run_until_cancelled_owned(turns).await;
    }

    /// A deployment has told how many requests wait in it.
    pub(crate) fn reported(self: &Arc<Self>, deployment: u32, waiting: usize) {
        self.tell(|state, now| state.admission.reported(now, deployment, waiting));
    }

    /// How things stand.
    pub(crate) fn standing(&self) -> Standing {
        self.state.lock().admission.standing()
    }

    /// Which callers have requests in the queue, and how many.
    pub(crate) fn queued_by_caller(&self) -> Vec<(u32, usize)> {
        self.state.lock().admission.queued_by_caller().collect()
    }

    /// A moment as the admission counts it.
    pub(crate) fn time(&self, instant: Instant) -> Time {
        Time::after_epoch(instant.saturating_duration_since(self.epoch))
    }

    /// Since there is this.
    pub(crate) fn elapsed(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn instant(&self, time: Time) -> Instant {
        let far = Duration::from_secs(3600);
        self.epoch + Duration::from_nanos(time.as_nanos()).min(self.epoch.elapsed() + far)
    }

    /// Tells the admission something, and those whose turn has come by it.
    fn tell<T>(self: &Arc<Self>, event: impl FnOnce(&mut State, Time) -> T) -> T {
        let mut turns = Vec::new();
        let mut state = self.state.lock();
        let now = self.time(Instant::now());
        let told = event(&mut state, now);
        while let Some(turn) = state.admission.turn(now) {
            let (queued, turn) = match turn {
                Turn::Place(queued, place) => (queued, Ok(self.taken(place))),
                Turn::Refused(queued, saturated) => (queued, Err(saturated)),
            };
            turns.push((state.waiting.remove(&queued), turn));
        }
        drop(state);
        for (sender, turn) in turns {
            // Who has gone gives its place back as it is dropped.
            let _ = sender.map(|sender| sender.send(turn));
        }
        told
    }

    fn taken(self: &Arc<Self>, place: AdmittedPlace) -> Place {
        Place {
            pool: Arc::clone(self),
            place: Some(place),
            usage: Usage::default(),
            told: 0,
        }
    }

    fn refusal(&self, saturated: Saturated) -> Refusal {
        self.metrics.shed(saturated.reason);
        Refusal::saturated(&self.model, self.standing().limit, saturated)
    }
}

impl Place {
    /// The request is sent to a deployment, for the first time or to another one.
    pub(crate) fn sent(&mut self, deployment: u32) {
        self.tell(|state, now, place| state.admission.sent(now, place, deployment));
    }

    /// The first token of its answer has come.
    pub(crate) fn first_token(&mut self) {
        self.tell(|state, now, place| state.admission.first_token(now, place));
    }

    /// What it has used so far.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.usage = usage;
        let written = usage.completion_tokens;
        if self.pool.is_adaptive && written >= self.told.saturating_add(TOLD_TOKENS) {
            self.told = written;
            self.tell(|state, _, place| state.admission.wrote(place, written));
        }
    }

    fn tell(&mut self, event: impl FnOnce(&mut State, Time, &AdmittedPlace)) {
        if let Some(place) = &self.place {
            self.pool.tell(|state, now| event(state, now, place));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let Usage {
            prompt_tokens,
            completion_tokens,
            ..
        } = self.usage;
        self.pool
            .tell(|state, now| state.admission.end(now, place, prompt_tokens, completion_tokens));
    }
}

/// A request in the queue, which leaves it when this is dropped.
struct Waiting<'a> {
    pool: &'a Arc<Pool>,
    queued: Queued,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.tell(|state, _| {
            if state.waiting.remove(&self.queued).is_some() {
                state.admission.cancel(self.queued);
            }
        });
    }
}
