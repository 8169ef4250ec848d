use std::time::Duration;

use llm_engine_admission::Request as Wanted;
use llm_engine_limit::Cost;
use llm_engine_wire::openai::Request;

use crate::admit::{Ask, subject};
use crate::attempt::Sending;
use crate::choose::{Chosen, Tried};
use crate::price::price;
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
    sending: Sending<'a>,
    running: Running,
}

/// Why a model does not answer.
enum NotAnswered {
    NotAdmitted {
        error: CompleteError,
        record: Record,
        /// Whether another model might: it is not the caller that has had enough.
        is_of_the_model: bool,
    },
    Failed(Failure, Running),
}

impl Gateway {
    /// Carries one request to the first token of its answer: price, admit, wait, choose, attempt. What follows, up to settling
    /// and reporting, happens as the answer is read or dropped. If its model can't answer, all of it begins anew with the first
    /// of the model's fallbacks, and so on.
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
        let mut fallbacks = route.fallbacks.iter();
        let mut record = self.record(caller, route, request, arrival);
        let mut sending = Sending::new(route, request, arrival);
        loop {
            let answer = async {
                let running = self
                    .prepare(caller, sending, arrival, Priority::Interactive, record)
                    .await?;
                sending.answer(running).await.map_err(NotAnswered::failed)
            };
            let not_answered = match answer.await {
                Ok(answer) => return Ok(answer),
                Err(not_answered) => not_answered,
            };
            let next = fallbacks.next().filter(|_| not_answered.another_might());
            let Some(next) = next.filter(|_| !sending.is_late()) else {
                return Err(not_answered.end());
            };
            sending.route = self.routes.at(*next);
            sending.public_model = &sending.route.name;
            record = not_answered.into_record();
            record.falls_back_to(sending.route);
        }
    }

    /// The first half of [`Self::complete`], for who must know when a request is admitted: price, admit, wait, choose. No
    /// other model is asked.
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
        let record = self.record(caller, route, request, arrival);
        let sending = Sending::new(route, request, arrival);
        let running = self.prepare(caller, sending, arrival, priority, record).await;
        let running = running.map_err(NotAnswered::end)?;
        Ok(Admitted { sending, running })
    }

    fn record(&self, caller: &Caller, route: &Route, request: &Request, arrival: &Arrival<'_>) -> Record {
        let trace = Trace::begin(self.telemetry.as_ref(), request, arrival);
        Record::begin(&self.explanations, arrival, caller, route, (self.now(), trace))
    }

    /// All that comes before a request is sent.
    async fn prepare(
        &self,
        caller: &Caller,
        Sending { route, request, .. }: Sending<'_>,
        arrival: &Arrival<'_>,
        priority: Priority,
        mut record: Record,
    ) -> Result<Running, NotAnswered> {
        // Shutting down waits also for those that wait for a place.
        let token = self.requests.tasks.token();
        let subject = subject(caller, route, arrival);
        let mut is_of_the_model = false;
        let prepared = async {
            self.refuse_while_draining()?;
            is_of_the_model = true;
            // Before the policies, which would take a booked time for it.
            route.refuse_while_none_can_be_asked()?;
            // Asked only about a request that names no maximum: it takes the limiter's lock.
            let learns = || self.limits.learns_output(subject);
            let price = price(route, request, self.limits.counts_input(), learns).await;
            let ask = Ask {
                subject,
                cost: price.cost,
                arrival,
            };
            is_of_the_model = false;
            let permit = self.unless_cut_off(self.limits.admit(ask, &mut record)).await??;
            is_of_the_model = true;
            let wanted = Wanted {
                subject,
                class: priority.into(),
                input_tokens: price.cost.input_tokens,
                most_output_tokens: price.cost.output_tokens,
                deadline: arrival.deadline.map(|deadline| route.pool.time(deadline)),
                fingerprint: Some(arrival.fingerprint),
            };
            match self.place((route, request), wanted, price.cost).await {
                Ok((place, chosen)) => Ok((price, permit, place, chosen)),
                Err(error) => {
                    permit.give_back(arrival, error.retry_after());
                    Err(error)
                }
            }
        };
        match prepared.await {
            Ok((price, permit, place, chosen)) => {
                record.admitted();
                let held = (permit, place, chosen, record);
                Ok(Running::new(
                    held,
                    route,
                    (price, request.answers()),
                    (&self.requests, token),
                ))
            }
            Err(error) => Err(NotAnswered::NotAdmitted {
                error,
                record,
                is_of_the_model,
            }),
        }
    }

    /// A place in front of the deployments, and one of them. If those of which the load is found out are full, one that limits
    /// itself may do, which needs no place.
    async fn place(
        &self,
        (route, request): (&Route, &Request),
        wanted: Wanted,
        cost: Cost,
    ) -> Result<(Option<Place>, Chosen), CompleteError> {
        match self.unless_cut_off(route.pool.place(wanted)).await? {
            Ok(place) => {
                // While it waited a deployment may have said that it does not want to be asked.
                let chosen = route.choose(request, cost, Tried::default(), true)?;
                Ok((Some(place), chosen))
            }
            Err(saturated) if !route.pool.is_adaptive => Err(saturated.into()),
            Err(saturated) => {
                let chosen = route.choose(request, cost, Tried::default(), false);
                Ok((None, chosen.map_err(|_| saturated)?))
            }
        }
    }
}

impl Admitted<'_> {
    /// Sends it: the second half of [`Gateway::complete`].
    ///
    /// # Errors
    /// [`CompleteError::Failed`], and it is settled.
    pub async fn answer(self) -> Result<AnswerBody, CompleteError> {
        let answer = self.sending.answer(self.running).await;
        answer.map_err(|failed| NotAnswered::failed(failed).end())
    }
}

impl NotAnswered {
    fn failed((failure, running): (Failure, Running)) -> Self {
        Self::Failed(failure, running)
    }

    /// Whether another model might answer.
    fn another_might(&self) -> bool {
        match self {
            Self::NotAdmitted { is_of_the_model, .. } => *is_of_the_model,
            Self::Failed(failure, _) => failure.is_of_the_deployment(),
        }
    }

    /// There is no answer.
    fn end(self) -> CompleteError {
        match self {
            Self::NotAdmitted {
                error, mut record, ..
            } => {
                record.ended_by(&error);
                error
            }
            Self::Failed(failure, running) => {
                running.failed(&failure, false);
                failure.into()
            }
        }
    }

    /// Nothing is charged, since another model is asked.
    fn into_record(self) -> Record {
        match self {
            Self::NotAdmitted { record, .. } => record,
            Self::Failed(_, running) => running.into_record(),
        }
    }
}
