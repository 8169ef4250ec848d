use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use llm_engine_limit::Cost;
use llm_engine_wire::openai::Usage;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::admit::Permit;
use crate::deployment::Deployment;
use crate::learn::AnswerLengths;
use crate::price::{Price, cost};
use crate::report::Record;
use crate::wait::Place;
use crate::{CompleteError, Failure, PriceSetup, Route, TraceHeaders};

/// All requests that are running.
#[derive(Debug, Default, Clone)]
pub(crate) struct Requests {
    /// One token for each of them, and the tasks that settle what was abandoned.
    pub(crate) tasks: TaskTracker,
    /// Wakes them all up to be ended.
    cut_off: CancellationToken,
    /// Whether it did, to be seen without its lock.
    is_cut_off: Arc<AtomicBool>,
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
            cut_off: self.cut_off.cancelled(),
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

/// A request that has been admitted and has a place. Wherever it is dropped, it is settled and reported once: a request
/// that was sent and has not ended is cancelled at the deployment first, and charged what was generated until then.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it has ended.
    held: Option<Held>,
    work: Work,
    requests: Requests,
}

/// What a running request holds, given back in this order.
#[derive(Debug)]
struct Held {
    permit: Permit,
    _place: Place,
    record: Record,
    deployment: Arc<Deployment>,
    price: PriceSetup,
    answer_lengths: Arc<AnswerLengths>,
    asked: Price,
    answers: u64,
    request_id: String,
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
        (permit, place, record): (Permit, Place, Record),
        route: &Route,
        (asked, answers): (Price, u64),
        request_id: &str,
        requests: &Requests,
    ) -> Self {
        let held = Held {
            permit,
            _place: place,
            record,
            deployment: Arc::clone(&route.deployment),
            price: route.price,
            answer_lengths: Arc::clone(&route.answer_lengths),
            asked,
            answers,
            request_id: request_id.to_owned(),
            _token: requests.tasks.token(),
        };
        Self {
            held: Some(held),
            work: Work::NotSent,
            requests: requests.clone(),
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

    /// The request is about to be sent; if nothing more becomes known it is charged the tokens of its prompt. Gives what the
    /// deployment is told of its trace.
    pub(crate) fn sent(&mut self, prompt_tokens: u64, stream: bool) -> Option<Box<TraceHeaders>> {
        self.work = Work::Sent;
        let held = self.held.as_mut()?;
        held.count(Usage::new(prompt_tokens, 0), true);
        let max_output_tokens = held.asked.max_output_tokens;
        held.record.sent(&held.deployment, stream, max_output_tokens)
    }

    /// The model that answers, as its deployment calls it.
    pub(crate) fn answered_by(&mut self, model: impl FnOnce() -> Option<String>) {
        if let Some(held) = &mut self.held {
            held.record.answered_by(model);
        }
    }

    /// What it has used so far. `estimated`: chunks were counted, not tokens.
    pub(crate) fn count(&mut self, usage: Usage, estimated: bool) {
        if let Some(held) = &mut self.held {
            held.count(usage, estimated);
        }
    }

    /// The first event has come.
    pub(crate) fn first_event(&mut self) {
        if let Some(held) = &mut self.held {
            held.record.first_event();
        }
    }

    /// The answer is whole.
    pub(crate) fn completed(mut self) {
        self.work = Work::Ended;
        if let Some(held) = &mut self.held {
            held.record.completed();
            let tokens = held.record.output_tokens() / held.answers.max(1);
            let was_cut_off = tokens >= held.asked.max_output_tokens;
            // How long an answer would have been that was cut off where its caller wanted, nobody knows.
            if !(was_cut_off && held.asked.is_named) {
                held.answer_lengths.observe(tokens, was_cut_off);
            }
        }
    }

    /// There will be no (whole) answer. `begun`: some of it has arrived and counts; else only the request itself does,
    /// and not even that if it could not be delivered.
    pub(crate) fn failed(mut self, failure: &Failure, begun: bool) {
        let Some(held) = &mut self.held else { return };
        match failure {
            Failure::Unreachable(_) => held.charge(Cost::NOTHING),
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
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        if self.work != Work::Sent || !held.deployment.can_cancel() {
            return;
        }
        // Outside a runtime nobody can be asked: what was counted so far is charged.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let settle = async move {
            if let Some(usage) = held.deployment.cancel(&held.request_id).await {
                held.count(usage, false);
            }
        };
        self.requests.tasks.spawn_on(settle, &runtime);
    }
}

impl Held {
    fn count(&mut self, usage: Usage, estimated: bool) {
        self.charge(cost(self.price, usage.prompt_tokens, usage.completion_tokens));
        self.record.usage(usage, estimated);
    }

    fn charge(&mut self, cost: Cost) {
        self.permit.count(cost);
        self.record.charged(cost);
    }
}
