use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;
use futures_util::future::join_all;
use llm_engine_limit::Name;
use llm_engine_retry::Budget;
use parking_lot::Mutex;

use crate::PriceSetup;
use crate::deployment::Deployment;
use crate::learn::AnswerLengths;
use crate::metrics::ModelMetrics;
use crate::wait::Pool;

/// A model by its public name, and what stands behind it.
#[derive(Debug)]
pub struct Route {
    /// The first public name.
    pub name: Name,
    /// All further names.
    pub aliases: Vec<String>,
    /// Whether v1 prompts go through the model's chat template.
    pub chat_template_for_prompts: bool,
    /// The number by which policies know the model.
    pub(crate) id: u32,
    pub(crate) default_output_tokens: u64,
    pub(crate) price: PriceSetup,
    pub(crate) answer_lengths: Arc<AnswerLengths>,
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) pool: Arc<Pool>,
    /// What other attempts may be made after failures that came without a hint.
    pub(crate) retries: Mutex<Budget>,
    /// The models that answer while it can't, by their places among all.
    pub(crate) fallbacks: Vec<usize>,
    pub(crate) metrics: Arc<ModelMetrics>,
}

/// Whether a route can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteStatus {
    /// Its deployment answers.
    Ready,
    /// Its model worker is being started.
    Starting,
    /// Its deployment does not answer.
    Down,
}

/// No model has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no model '{name}'")]
pub struct UnknownModel {
    /// The name that was asked for.
    pub name: String,
}

impl Route {
    /// All of its public names, the first one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(String::as_str);
        std::iter::once(self.name.as_str()).chain(aliases)
    }

    /// Asks its deployments whether they can answer: the best that one of them says.
    pub async fn status(&self) -> RouteStatus {
        let statuses = join_all(self.deployments.iter().map(|deployment| deployment.status())).await;
        let best = [RouteStatus::Ready, RouteStatus::Starting];
        let best = best.into_iter().find(|status| statuses.contains(status));
        best.unwrap_or(RouteStatus::Down)
    }

    /// Requests that are with its deployments, as far as they have a place there.
    #[must_use]
    pub fn running(&self) -> usize {
        self.pool.standing().in_flight
    }

    /// Brings its metrics up to date. `name` knows callers by their numbers.
    pub(crate) fn look(&self, name: impl Fn(u32) -> Option<Name>) {
        self.metrics.now(&self.pool.standing());
        for (caller, queued) in self.pool.queued_by_caller() {
            if let Some(caller) = name(caller) {
                self.metrics.queued(caller, queued);
            }
        }
        if self.deployments.len() > 1 {
            let left = self.retries.lock().left(self.pool.elapsed());
            self.metrics.retries_left(left);
        }
        for deployment in &self.deployments {
            let is_well = deployment.is_up() && !deployment.health.is_ejected();
            let running = deployment.load.requests();
            self.metrics.deployment_now(deployment.label, running, is_well);
        }
    }
}

/// The routes by all of their names.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    by_name: HashMap<String, usize, RandomState>,
}

impl Routes {
    /// That of this place among all.
    pub(crate) fn at(&self, index: usize) -> &Arc<Route> {
        &self.routes[index]
    }

    /// Each route's id is its position.
    pub(crate) fn new(routes: Vec<Route>) -> Self {
        let mut by_name = HashMap::default();
        for (index, route) in routes.iter().enumerate() {
            for name in route.names() {
                by_name.insert(name.to_owned(), index);
            }
        }
        Self {
            routes: routes.into_iter().map(Arc::new).collect(),
            by_name,
        }
    }

    pub(crate) fn resolve(&self, name: &str) -> Result<&Arc<Route>, UnknownModel> {
        let index = self.by_name.get(name).ok_or_else(|| UnknownModel {
            name: name.to_owned(),
        })?;
        Ok(&self.routes[*index])
    }

    pub(crate) fn all(&self) -> &[Arc<Route>] {
        &self.routes
    }
}
