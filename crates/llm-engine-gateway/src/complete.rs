use std::time::Duration;

use llm_engine_wire::openai::Request;

use crate::admit::{Ask, subject};
use crate::attempt::attempt;
use crate::price::{Price, price};
use crate::report::Record;
use crate::settle::Running;
use crate::stream::AnswerStream;
use crate::trace::Trace;
use crate::wait::{Place, Priority};
use crate::{Arrival, Caller, Failure, Gateway, Refusal, Route};

/// What a request led to. Its permit lives in the body, and is settled when the body ends or is dropped.
#[derive(Debug)]
pub enum AnswerBody {
    /// Events as they come.
    Stream(Box<AnswerStream>),
    /// A whole answer of a deployment that was asked for one, passed through: JSON.
    Whole(String),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// We said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The deployment did not deliver.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl CompleteError {
    /// The word in the answer's body and in the log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code.as_str(),
            Self::Failed(failure) => failure.code(),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.code.status(),
            Self::Failed(failure) => failure.status(),
        }
    }
}

impl CompleteError {
    /// When another attempt makes sense, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Failed(failure) => failure.retry_after(),
        }
    }
}

/// A request that may be sent now: its permit and its place are taken, and given back where this is dropped.
#[derive(Debug)]
pub struct Admitted<'a> {
    route: &'a Route,
    request: &'a Request,
    request_id: &'a str,
    price: Price,
    running: Running,
}

impl Gateway {
    /// Carries one request to the first token of its answer: price, admit, wait, attempt. What follows, up to settling
    /// and reporting, happens as the answer is read or dropped.
    ///
    /// # Errors
    /// [`CompleteError::Refused`] has reserved nothing; [`CompleteError::Failed`] is settled.
    pub async fn complete(
        &self,
        caller: &Caller,
        route: &Route,
        request: &Request,
        arrival: &Arrival<'_>,
    ) -> Result<AnswerBody, CompleteError> {
        let admitted = self.admit(caller, route, request, arrival, Priority::Interactive);
        admitted.await?.answer().await
    }

    /// The first half of [`Self::complete`], for who must know when a request is admitted: price, admit, wait.
    ///
    /// # Errors
    /// As there.
    pub async fn admit<'a>(
        &self,
        caller: &Caller,
        route: &'a Route,
        request: &'a Request,
        arrival: &Arrival<'a>,
        priority: Priority,
    ) -> Result<Admitted<'a>, CompleteError> {
        let at = (self.wall_clock)();
        let trace = Trace::begin(self.telemetry.as_ref(), request, arrival);
        let mut record = Record::begin(&self.explanations, arrival, caller, route, (at, trace));
        // Shutting down waits also for those that wait for a place.
        let _token = self.requests.tasks.token();
        let subject = subject(caller, route, arrival);
        let prepared = async {
            self.refuse_while_draining()?;
            // Before the policies, which would take a booked time for it.
            route.deployment.refuse_while_cooling()?;
            // Asked only about a request that names no maximum: it takes the limiter's lock.
            let learns = || self.limits.learns_output(subject);
            let price = price(route, request, self.limits.counts_input(), learns).await;
            let ask = Ask {
                subject,
                cost: price.cost,
                arrival,
            };
            let permit = self.unless_cut_off(self.limits.admit(ask, &mut record)).await??;
            match self.place(route, priority).await {
                Ok(place) => Ok((price, permit, place)),
                Err(error) => {
                    permit.give_back(arrival, error.retry_after());
                    Err(error)
                }
            }
        };
        let prepared = prepared.await;
        let (price, permit, place) = prepared.inspect_err(|error| record.ended_by(error))?;
        record.admitted();
        let running = Running::new(
            (permit, place, record),
            route,
            (price, request.answers()),
            arrival.request_id,
            &self.requests,
        );
        Ok(Admitted {
            route,
            request,
            request_id: arrival.request_id,
            price,
            running,
        })
    }

    /// A place in front of a model that can run.
    async fn place(&self, route: &Route, priority: Priority) -> Result<Place, CompleteError> {
        let place = self.unless_cut_off(route.queue.place(priority)).await??;
        route.refuse_while_down()?;
        // Others may have been told meanwhile.
        route.deployment.refuse_while_cooling()?;
        Ok(place)
    }
}

impl Admitted<'_> {
    /// Sends it: the second half of [`Gateway::complete`].
    ///
    /// # Errors
    /// [`CompleteError::Failed`], and it is settled.
    pub async fn answer(self) -> Result<AnswerBody, CompleteError> {
        let Self {
            route,
            request,
            request_id,
            price,
            running,
        } = self;
        Ok(attempt(route, request, price, request_id, running).await?)
    }
}
