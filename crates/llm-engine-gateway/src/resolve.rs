use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

use crate::PriceSetup;
use crate::deployment::Deployment;
use crate::learn::AnswerLengths;
use crate::metrics::ModelMetrics;
use crate::wait::Queue;

/// A model by its public name, and what stands behind it.
#[derive(Debug)]
pub struct Route {
    /// The first public name.
    pub name: String,
    /// All further names.
    pub aliases: Vec<String>,
    /// Whether v1 prompts go through the model's chat template.
    pub chat_template_for_prompts: bool,
    /// The number by which policies know the model.
    pub(crate) id: u32,
    pub(crate) default_output_tokens: u64,
    pub(crate) price: PriceSetup,
    pub(crate) answer_lengths: Arc<AnswerLengths>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) queue: Queue,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// Who is behind it, for the log.
    pub(crate) upstream: Arc<str>,
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
    /// Asks the deployment whether it can answer.
    pub async fn status(&self) -> RouteStatus {
        self.deployment.status().await
    }
}

/// The routes by all of their names.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    by_name: HashMap<String, usize, RandomState>,
}

impl Routes {
    /// Each route's id is its position.
    pub(crate) fn new(routes: Vec<Route>) -> Self {
        let mut by_name = HashMap::default();
        for (index, route) in routes.iter().enumerate() {
            for name in std::iter::once(&route.name).chain(&route.aliases) {
                by_name.insert(name.clone(), index);
            }
        }
        Self {
            routes: routes.into_iter().map(Arc::new).collect(),
            by_name,
        }
    }

    pub(crate) fn resolve(&self, name: &str) -> Result<Arc<Route>, UnknownModel> {
        let index = self.by_name.get(name).ok_or_else(|| UnknownModel {
            name: name.to_owned(),
        })?;
        Ok(Arc::clone(&self.routes[*index]))
    }

    pub(crate) fn all(&self) -> &[Arc<Route>] {
        &self.routes
    }
}
