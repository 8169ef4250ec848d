use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use llm_engine_limit::Cost;
use llm_engine_wire::openai::Usage;
use pin_project_lite::pin_project;
use thread_local::ThreadLocal;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::admit::Permit;
use crate::choose::{Chosen, Suspect};
use crate::deployment::Deployment;
use crate::learn::AnswerLengths;
use crate::metrics::ModelMetrics;
use crate::price::{Price, cost};
use crate::report::Record;
use crate::wait::Place;
use crate::{CompleteError, Failure, PriceSetup, Route, TraceHeaders};

/// All requests that are running, which share it: each copy of what is in it would be a lock.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// One token for each of them, and the tasks that settle what was abandoned.
    pub(crate) tasks: TaskTracker,
    /// Wakes them all up to be ended. Each thread waits for its own child of it, since who waits takes its lock.
    cut_off: CancellationToken,
    cut_off_of_threads: ThreadLocal<CancellationToken>,
    /// Whether it did, to be seen without its lock.
    is_cut_off: AtomicBool,
}

impl Requests {
    /// Ends them all.
    pub(crate) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
        self.cut_off.cancel();
    }

    /// Waits for this, unless the time for draining is over first.
    pub(crate) fn unless_cut_off<F: Future>(&self, waiting: F) -> UnlessCutOff<'_, F> {
        UnlessCutOff {
            is_cut_off: &self.is_cut_off,
            cut_off: self
                .cut_off_of_threads
                .get_or(|| self.cut_off.child_token())
                .cancelled(),
            waiting,
        }
    }
}

pin_project! {
    /// Waits for something, unless the time for draining is over first. By hand, because an `async fn` has room for what it is
    /// given and for what it waits for, and these are the largest futures of a request.
    pub(crate) struct UnlessCutOff<'a, F> {
        is_cut_off: &'a AtomicBool,
        #[pin]
        cut_off: WaitForCancellationFuture<'a>,
        #[pin]
        waiting: F,
    }
}

impl<F: Future> Future for UnlessCutOff<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        if this.is_cut_off.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        // What need not wait does not stand in line to be told.
        if let Poll::Ready(waited) = this.waiting.poll(context) {
            return Poll::Ready(Some(waited));
        }
        this.cut_off.poll(context).map(|()| None)
    }
}

/// A request that has been admitted. Wherever it is dropped, it is settled and reported once: a request
/// that was sent and has not ended is cancelled at the deployment first, and charged what was generated until then.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it has ended.
    held: Option<Box<Held>>,
    work: Work,
    requests: Arc<Requests>,
}

/// What a running request holds, given back in this order.
#[derive(Debug)]
struct Held {
    permit: Permit,
    /// `None` of one that is with a deployment that limits itself, because the others are full.
    place: Option<Place>,
    record: Record,
    chosen: Chosen,
    metrics: Arc<ModelMetrics>,
    price: PriceSetup,
    answer_lengths: Arc<AnswerLengths>,
    asked: Price,
    answers: u64,
    /// Shutting down waits for this.
    _token: TaskTrackerToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The deployment knows nothing of the request.
    NotSent,
    /// It may be working on it.
    Sent,
    /// It no longer is.
    Ended,
}

impl Running {
    pub(crate) fn new(
        (permit, place, chosen, record): (Permit, Option<Place>, Chosen, Record),
        route: &Route,
        (asked, answers): (Price, u64),
        (requests, token): (&Arc<Requests>, TaskTrackerToken),
    ) -> Self {
        let held = Held {
            permit,
            place,
            record,
            chosen,
            metrics: Arc::clone(&route.metrics),
            price: route.price,
            answer_lengths: Arc::clone(&route.answer_lengths),
            asked,
            answers,
            _token: token,
        };
        Self {
            held: Some(Box::new(held)),
            work: Work::NotSent,
            requests: Arc::clone(requests),
        }
    }

    /// Waits for this, unless the time for draining is over first.
    pub(crate) fn unless_cut_off<T>(
        &self,
        waiting: impl Future<Output = Result<T, Failure>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        let waited = self.requests.unless_cut_off(waiting);
        waited.map(|waited| waited.unwrap_or(Err(Failure::CutOff)))
    }

    fn held(&mut self) -> &mut Held {
        self.held.as_mut().expect("it has not ended")
    }

    /// What it may cost.
    pub(crate) fn price(&self) -> Price {
        self.held.as_ref().expect("it has not ended").asked
    }

    /// Whether it counts among those that adaptive deployments work on.
    pub(crate) fn has_place(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.place.is_some())
    }

    /// The deployment that was chosen for it.
    pub(crate) fn deployment(&mut self) -> Arc<Deployment> {
        Arc::clone(&self.held().chosen.deployment)
    }

    /// The request is about to be sent; if nothing more becomes known it is charged the tokens of its prompt. Gives what the
    /// deployment is told of its trace.
    pub(crate) fn sent(&mut self, prompt_tokens: u64, stream: bool) -> Option<Box<TraceHeaders>> {
        self.work = Work::Sent;
        let held = self.held();
        held.count(Usage::new(prompt_tokens, 0), true);
        let deployment = &held.chosen.deployment;
        // Of an answer that comes whole there is no first token to learn from.
        if let Some(place) = held.place.as_mut().filter(|_| stream && deployment.is_adaptive) {
            place.sent(deployment.number);
        }
        let max_output_tokens = held.asked.max_output_tokens;
        held.record.sent(deployment, stream, max_output_tokens)
    }

    /// The attempt at its deployment has failed, most likely by the fault of that.
    pub(crate) fn attempt_failed(&mut self, failure: &Failure) -> Suspect {
        let held = self.held();
        held.metrics.failed(failure);
        Suspect::new(&mut held.chosen, failure, &held.metrics)
    }

    /// Another attempt is made, at this deployment.
    pub(crate) fn goes_to(&mut self, chosen: Chosen) {
        self.work = Work::NotSent;
        self.held().chosen = chosen;
    }

    /// The model that answers, as its deployment calls it.
    pub(crate) fn answered_by(&mut self, model: impl FnOnce() -> Option<String>) {
        self.held().record.answered_by(model);
    }

    /// What it has used so far. `estimated`: chunks were counted, not tokens.
    pub(crate) fn count(&mut self, usage: Usage, estimated: bool) {
        self.held().count(usage, estimated);
    }

    /// The first event has come.
    pub(crate) fn first_event(&mut self) {
        let held = self.held();
        held.record.first_event();
        held.chosen.began();
        let is_adaptive = held.chosen.deployment.is_adaptive;
        if let Some(place) = held.place.as_mut().filter(|_| is_adaptive) {
            place.first_token();
        }
    }

    /// The answer is whole.
    pub(crate) fn completed(mut self) {
        self.work = Work::Ended;
        let held = self.held();
        held.record.completed();
        held.chosen.succeeded();
        let tokens = held.record.output_tokens() / held.answers.max(1);
        let was_cut_off = tokens >= held.asked.max_output_tokens;
        // How long an answer would have been that was cut off where its caller wanted, nobody knows.
        if !(was_cut_off && held.asked.is_named) {
            held.answer_lengths.observe(tokens, was_cut_off);
        }
    }

    /// There will be no (whole) answer. `begun`: some of it has arrived and counts; else only the request itself does,
    /// and not even that if it could not be delivered.
    pub(crate) fn failed(mut self, failure: &Failure, begun: bool) {
        let held = self.held();
        match failure {
            Failure::Unreachable(_) => held.charge_nothing(),
            _ if !begun => held.charge(Cost {
                requests: 1,
                ..Cost::NOTHING
            }),
            _ => {}
        }
        held.record.ended_by(&CompleteError::Failed(failure.clone()));
        // Where we gave up, the deployment may still be working: dropping `self` cancels it.
        if !matches!(failure, Failure::TimedOut(_) | Failure::CutOff) {
            self.work = Work::Ended;
        }
    }

    /// Another model is asked: nothing is charged for this one, and the request is not over.
    pub(crate) fn into_record(mut self) -> Record {
        self.held().charge_nothing();
        let held = self.held.take().expect("it has not ended");
        let deployment = Arc::clone(&held.chosen.deployment);
        if self.work == Work::Sent && deployment.can_cancel() {
            let request_id = held.record.request_id().to_owned();
            self.requests
                .tasks
                .spawn(async move { deployment.cancel(&request_id).await });
        }
        held.record
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        if self.work != Work::Sent || !held.chosen.deployment.can_cancel() {
            return;
        }
        // Outside a runtime nobody can be asked: what was counted so far is charged.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let settle = async move {
            if let Some(usage) = held.chosen.deployment.cancel(held.record.request_id()).await {
                held.count(usage, false);
            }
        };
        self.requests.tasks.spawn_on(settle, &runtime);
    }
}

impl Held {
    fn count(&mut self, usage: Usage, estimated: bool) {
        self.charge(cost(self.price, usage.prompt_tokens, usage.completion_tokens));
        if let Some(place) = &mut self.place {
            place.used(usage);
        }
        self.record.usage(usage, estimated);
    }

    fn charge_nothing(&mut self) {
        self.charge(Cost::NOTHING);
        if let Some(place) = &mut self.place {
            place.used(Usage::default());
        }
    }

    fn charge(&mut self, cost: Cost) {
        self.permit.count(cost);
        if let Some(permit) = &mut self.chosen.permit {
            permit.count(cost);
        }
        self.record.charged(cost);
    }
}
