use std::sync::Arc;
use std::time::Duration;

use llm_engine_limit::Cost;
use llm_engine_wire::openai::Request;
use tokio::time::Instant;

use crate::admit::Permit;
use crate::deployment::Deployment;
use crate::health::Trial;
use crate::load::Burden;
use crate::metrics::ModelMetrics;
use crate::{CompleteError, Failure, Refusal, Route};

/// The deployment to which a request is sent, and what it holds there.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) deployment: Arc<Deployment>,
    /// `None` once it has failed.
    trial: Option<Trial>,
    /// `None` where there is nothing to choose.
    pub(crate) burden: Option<Burden>,
    /// Of the deployment's own quotas.
    pub(crate) permit: Option<Permit>,
}

/// A deployment at which a request has failed.
#[derive(Debug)]
pub(crate) struct Suspect {
    deployment: Arc<Deployment>,
    trial: Option<Trial>,
    failure: Failure,
    metrics: Arc<ModelMetrics>,
}

/// The deployments that a request has been sent to, by their numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried(u64);

/// The most deployments of a model.
pub const MOST_DEPLOYMENTS: usize = u64::BITS as usize;

impl Tried {
    pub(crate) fn add(&mut self, deployment: &Deployment) {
        self.0 |= 1 << deployment.number;
    }

    fn any(self) -> bool {
        self.0 > 0
    }

    fn has(self, deployment: &Deployment) -> bool {
        self.0 >> deployment.number & 1 == 1
    }
}

/// Why none can be chosen. Of several reasons the one that is over first counts.
#[derive(Debug, Default)]
struct NoneOf {
    cooling: Option<(Instant, Arc<Deployment>)>,
    /// Its quotas say no.
    full: Option<Refusal>,
    ejected: Option<Instant>,
    /// It has no words for what is asked.
    unsayable: Option<Failure>,
}

impl Route {
    /// The deployment that is expected to answer first, of those that are well, may be asked, and have not been tried for this request.
    /// `has_place`: it counts among those that adaptive deployments work on.
    pub(crate) fn choose(
        &self,
        request: &Request,
        cost: Cost,
        tried: Tried,
        has_place: bool,
    ) -> Result<Chosen, CompleteError> {
        let mut none_of = NoneOf::default();
        // Without a place only those are left that limit themselves. With one they are, if no other can be asked.
        let adaptive = [true, false]
            .into_iter()
            .filter(|adaptive| has_place || !adaptive);
        for is_adaptive in adaptive {
            let mut candidates: Vec<&Arc<Deployment>> = self
                .deployments
                .iter()
                .filter(|deployment| deployment.is_adaptive == is_adaptive && !tried.has(deployment))
                .filter(|deployment| none_of.can_say(deployment, request) && none_of.can_be_asked(deployment))
                .collect();
            while let Some(index) = first_to_answer(&candidates, cost) {
                let deployment = candidates.swap_remove(index);
                // One that gives bad answers is better than none, but not better than what was answered before.
                let has_others = tried.any() || candidates.iter().any(|other| !other.health.is_ejected());
                if let Some(chosen) = self.take(deployment, has_others, cost, &mut none_of) {
                    return Ok(chosen);
                }
            }
        }
        Err(none_of.into_error(&self.name))
    }

    fn take(
        &self,
        deployment: &Arc<Deployment>,
        has_others: bool,
        cost: Cost,
        none_of: &mut NoneOf,
    ) -> Option<Chosen> {
        let trial = match deployment.health.try_it(has_others) {
            Ok(trial) => trial,
            Err(until) => {
                none_of.ejected = Some(none_of.ejected.map_or(until, |other| other.min(until)));
                return None;
            }
        };
        let permit = deployment.quotas.as_ref().map(|quotas| quotas.take(cost));
        let permit = match permit.transpose() {
            Ok(permit) => permit,
            Err(refusal) => {
                let wait = |refusal: &Refusal| refusal.retry_after.unwrap_or(Duration::MAX);
                let is_sooner = none_of
                    .full
                    .as_ref()
                    .is_none_or(|other| wait(&refusal) < wait(other));
                if is_sooner {
                    none_of.full = Some(refusal);
                }
                return None;
            }
        };
        let burden = (self.deployments.len() > 1).then(|| deployment.load.add(tokens(cost)));
        Some(Chosen {
            deployment: Arc::clone(deployment),
            trial: Some(trial),
            burden,
            permit,
        })
    }

    /// A request is sent, for the first time.
    pub(crate) fn count_request(&self) {
        if self.deployments.len() > 1 {
            self.retries.lock().request(self.pool.elapsed());
        }
    }

    /// Whether a request that has failed like this at one deployment may be sent to another. Who says when it can be asked again does
    /// not count: nothing is wrong there.
    pub(crate) fn may_retry(&self, failure: &Failure) -> bool {
        let is_hinted = matches!(failure, Failure::Limited { .. });
        let may = is_hinted || self.retries.lock().retry(self.pool.elapsed());
        self.metrics.retried(failure, may);
        may
    }

    /// Whether there is one that has not been tried.
    pub(crate) fn has_untried(&self, tried: Tried) -> bool {
        self.deployments.iter().any(|deployment| !tried.has(deployment))
    }

    /// Refuses a request that no deployment can be asked for, before anything is taken for it.
    pub(crate) fn refuse_while_none_can_be_asked(&self) -> Result<(), CompleteError> {
        let mut none_of = NoneOf::default();
        let mut deployments = self.deployments.iter();
        if deployments.any(|deployment| none_of.can_be_asked(deployment)) {
            return Ok(());
        }
        match none_of.cooling {
            Some(_) => Err(none_of.into_error(&self.name)),
            // A worker that is started again may be there when it is this request's turn.
            None => Ok(()),
        }
    }
}

/// Of two chosen at random the better one: who always takes the best goes where all others go at the same moment.
fn first_to_answer(candidates: &[&Arc<Deployment>], cost: Cost) -> Option<usize> {
    let count = candidates.len();
    if count < 2 {
        return count.checked_sub(1);
    }
    let first = fastrand::usize(..count);
    let second = (first + fastrand::usize(1..count)) % count;
    let wait = |index: usize| candidates[index].load.expected_wait(tokens(cost));
    Some(if wait(second) < wait(first) { second } else { first })
}

fn tokens(cost: Cost) -> u64 {
    cost.input_tokens.saturating_add(cost.output_tokens).max(1)
}

impl Suspect {
    pub(crate) fn new(chosen: &mut Chosen, failure: &Failure, metrics: &Arc<ModelMetrics>) -> Self {
        Self {
            deployment: Arc::clone(&chosen.deployment),
            trial: chosen.trial.take(),
            failure: failure.clone(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether it may be the fault of the request: the deployment has answered, but badly.
    pub(crate) fn may_be_innocent(&self) -> bool {
        matches!(self.failure, Failure::Broken(_))
    }

    /// It is the fault of the deployment, which that is remembered for.
    pub(crate) fn is_guilty(&self) {
        let deployment = self.deployment.label;
        let trial = self.trial.as_ref();
        if trial.is_some_and(|trial| trial.failed(&self.failure)) {
            tracing::warn!(deployment = deployment.as_str(), failure = %self.failure, "a deployment has failed again and again");
            self.metrics.set_aside(deployment, "ejected");
        }
        if matches!(self.failure, Failure::Limited { .. }) {
            self.metrics.set_aside(deployment, "cooling");
        }
    }
}

impl Chosen {
    /// Its answer has begun.
    pub(crate) fn began(&self) {
        if let Some(trial) = &self.trial {
            trial.began();
        }
        if let Some(burden) = &self.burden {
            burden.begun();
        }
    }

    /// The answer is whole.
    pub(crate) fn succeeded(&self) {
        if let Some(trial) = &self.trial {
            trial.succeeded();
        }
    }
}

impl NoneOf {
    fn can_say(&mut self, deployment: &Deployment, request: &Request) -> bool {
        let said = deployment.refuse_unsayable(request);
        let can = said.is_ok();
        self.unsayable = self.unsayable.take().or(said.err());
        can
    }

    fn can_be_asked(&mut self, deployment: &Arc<Deployment>) -> bool {
        if let Some(until) = deployment.cooling_until() {
            if self.cooling.as_ref().is_none_or(|(other, _)| until < *other) {
                self.cooling = Some((until, Arc::clone(deployment)));
            }
            return false;
        }
        deployment.is_up()
    }

    fn into_error(self, model: &str) -> CompleteError {
        if let Some((_, deployment)) = self.cooling {
            let retry_after = deployment.cooling_ends().unwrap_or_default();
            return Failure::Limited { retry_after }.into();
        }
        if let Some(refusal) = self.full {
            return refusal.into();
        }
        if let (Some(unsayable), None) = (self.unsayable, self.ejected) {
            return unsayable.into();
        }
        let now = Instant::now();
        let retry_after = self.ejected.map_or(AFTER_WORKER_START, |until| until - now);
        Refusal::no_deployment(model, retry_after).into()
    }
}

/// About how long a model worker takes to come back.
const AFTER_WORKER_START: Duration = Duration::from_secs(3);
