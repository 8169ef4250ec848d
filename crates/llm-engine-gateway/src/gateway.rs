use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use llm_engine_limit::Name;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::{Limits, subject};
use crate::authenticate::Callers;
use crate::connect::Proxies;
use crate::deployment::Deployment;
use crate::explain::Explanations;
use crate::housekeeping::keep_house;
use crate::learn::AnswerLengths;
use crate::metrics::{Metrics, ModelMetrics};
use crate::names::Names;
use crate::policies::name_all;
use crate::resolve::Routes;
use crate::settle::Requests;
use crate::supervise::Worker;
use crate::telemetry::Telemetry;
use crate::wait::{Pool, PoolSetup};
use crate::{
    Arrival, Caller, CallerSetup, CompleteError, DeploymentSetup, Explanation, Level, ModelSetup,
    PolicySetup, ProxySetup, Refusal, Route, Setup, SetupError, TelemetrySetup, Unauthenticated,
    UnknownModel,
};

/// Callers, routes, limits and deployments: all that requests need and share.
#[derive(Debug)]
pub struct Gateway {
    callers: RwLock<Callers>,
    pub(crate) routes: Routes,
    pub(crate) limits: Arc<Limits>,
    pub(crate) explanations: Arc<Explanations>,
    /// `None`: nothing is traced.
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) wall_clock: fn() -> Timestamp,
    pub(crate) requests: Arc<Requests>,
    metrics: Metrics,
    draining: AtomicBool,
    workers: TaskTracker,
    stop_workers: CancellationToken,
}

/// What a caller is told who comes while we are shutting down: another server, or this one started again.
const AFTER_DRAINING: Duration = Duration::from_secs(10);

impl Gateway {
    /// Makes a gateway and starts its model workers; needs a tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`] if a deployment can't be used as configured; no worker has been started then.
    pub fn start(setup: Setup) -> Result<Self, SetupError> {
        let workers = TaskTracker::new();
        let stop_workers = CancellationToken::new();
        let stop_on_error = stop_workers.clone().drop_guard();
        let mut names = Names::default();
        name_all(&mut names, &setup.models, &setup.callers);
        let metrics = Metrics::default();
        let surroundings = Surroundings {
            socket_folder: &setup.socket_folder,
            workers: &workers,
            stop_workers: &stop_workers,
            proxies: Arc::new(proxies(&setup)?),
            wall_clock: setup.wall_clock,
            metrics: &metrics,
        };
        let telemetry = setup.telemetry.map(|setup| surroundings.telemetry(setup));
        let telemetry = telemetry.transpose()?;
        let places = setup.models.iter().zip(0..);
        let places = places.flat_map(|(model, place)| {
            let names = std::iter::once(&model.name).chain(&model.aliases);
            names.map(move |name| (name.clone(), place))
        });
        let places: HashMap<String, usize> = places.collect();
        let routes: Result<Vec<Route>, SetupError> = setup
            .models
            .into_iter()
            .map(|model| surroundings.route(names.model(&model.name), model, &places))
            .collect();
        let callers = Callers::new(setup.callers, &names);
        let limits = Limits::start(setup.policies, names, setup.wall_clock, setup.journal)?;
        let limits = Arc::new(limits);
        workers.spawn(keep_house(Arc::clone(&limits), stop_workers.clone()));
        let gateway = Self {
            callers: RwLock::new(callers),
            routes: Routes::new(routes?),
            limits,
            explanations: Arc::default(),
            telemetry,
            wall_clock: setup.wall_clock,
            requests: Arc::default(),
            metrics,
            draining: AtomicBool::new(false),
            workers,
            stop_workers: stop_on_error.disarm(),
        };
        Ok(gateway)
    }

    /// Who has this API key.
    ///
    /// # Errors
    /// [`Unauthenticated`] if nobody has.
    pub fn authenticate(&self, api_key: &str) -> Result<Caller, Unauthenticated> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        callers.authenticate(api_key)
    }

    /// Who has this name, if anybody has.
    #[must_use]
    pub fn caller(&self, name: &str) -> Option<Caller> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        callers.named(name)
    }

    /// What the time is, for all that is written down.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.wall_clock)()
    }

    /// What stands behind the name of a model.
    ///
    /// # Errors
    /// [`UnknownModel`] if nothing does.
    pub fn resolve(&self, model: &str) -> Result<&Arc<Route>, UnknownModel> {
        self.routes.resolve(model)
    }

    /// Every model, in the order of the configuration.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        self.routes.all()
    }

    /// How every quota stands that could refuse such a request of this caller for this model.
    #[must_use]
    pub fn levels(&self, caller: &Caller, route: &Route, arrival: &Arrival<'_>) -> Vec<Level> {
        self.limits.levels(subject(caller, route, arrival))
    }

    /// The policies that are in force.
    #[must_use]
    pub fn policies(&self) -> Arc<[PolicySetup]> {
        self.limits.policies()
    }

    /// What became of a request, if it is one of the latest.
    #[must_use]
    pub fn explain(&self, request_id: &str) -> Option<Arc<Explanation>> {
        self.explanations.find(request_id)
    }

    /// Puts other callers and policies in force. Requests that are running go on; see
    /// [`Limiter::reload`](llm_engine_limit::Limiter::reload) for what becomes of their quotas.
    ///
    /// # Errors
    /// [`SetupError`] if a policy can't be enforced as written; nothing has changed then.
    pub fn reload(&self, callers: Vec<CallerSetup>, policies: Vec<PolicySetup>) -> Result<(), SetupError> {
        let callers = self.limits.reload(callers, policies, Callers::new)?;
        *self.callers.write().unwrap_or_else(PoisonError::into_inner) = callers;
        Ok(())
    }

    /// Has what is counted here shown with everything else.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Brings up to date what is not counted but looked at, for who wants to read the metrics now.
    pub fn look(&self) {
        // Who has left the queue is not shown any more.
        self.metrics.forget_queued();
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        for route in self.routes.all() {
            route.look(|caller| callers.name(caller));
        }
        drop(callers);
        self.metrics.limits(self.limits.held(), self.limits.counts());
    }

    /// From now on new requests are refused.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.requests.tasks.close();
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns when, after [`Self::drain`], no request is running any more.
    pub async fn drained(&self) {
        self.requests.tasks.wait().await;
    }

    /// Ends the requests that are still running with [`Failure::CutOff`](crate::Failure::CutOff).
    pub fn cut_off(&self) {
        self.requests.cut_off();
    }

    /// Ends the model workers, and sends what there is left of traces.
    pub async fn stop(&self) {
        self.stop_workers.cancel();
        self.workers.close();
        self.workers.wait().await;
    }

    /// Waits for this, unless the time for draining is over first.
    pub(crate) fn unless_cut_off<T>(
        &self,
        waiting: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, Refusal>> {
        let waited = self.requests.unless_cut_off(waiting);
        waited.map(|waited| waited.ok_or_else(|| Refusal::draining(AFTER_DRAINING)))
    }

    pub(crate) fn refuse_while_draining(&self) -> Result<(), CompleteError> {
        if self.is_draining() {
            Err(Refusal::draining(AFTER_DRAINING).into())
        } else {
            Ok(())
        }
    }
}

/// Tells the pool how many requests wait in the deployment, for as long as it goes on.
async fn watch_waiting(deployment: Arc<Deployment>, pool: Arc<Pool>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(waiting) = deployment.waiting().await {
            pool.reported(deployment.number, waiting);
        }
    }
}

/// Those that don't matter may be of a kind that can't be used.
fn proxies(setup: &Setup) -> Result<Proxies, SetupError> {
    let mut models = setup.models.iter();
    let is_remote = |model: &ModelSetup| {
        let mut deployments = model.deployments.iter();
        deployments.any(|deployment| matches!(deployment, DeploymentSetup::Remote(_)))
    };
    if setup.telemetry.is_some() || models.any(is_remote) {
        Proxies::new(&setup.proxies)
    } else {
        Proxies::new(&ProxySetup::default())
    }
}

/// What deployments need of the gateway.
struct Surroundings<'a> {
    socket_folder: &'a Path,
    workers: &'a TaskTracker,
    stop_workers: &'a CancellationToken,
    proxies: Arc<Proxies>,
    wall_clock: fn() -> Timestamp,
    metrics: &'a Metrics,
}

impl Surroundings<'_> {
    fn telemetry(&self, setup: TelemetrySetup) -> Result<Telemetry, SetupError> {
        let stop = self.stop_workers.clone();
        Telemetry::start(setup, &self.proxies, self.metrics, self.workers, stop)
    }

    fn route(
        &self,
        id: u32,
        model: ModelSetup,
        places: &HashMap<String, usize>,
    ) -> Result<Route, SetupError> {
        let name = Name::from(&*model.name);
        let metrics = Arc::new(self.metrics.of_model(name));
        let fallbacks = model.fallbacks.iter().map(|name| {
            let place = places.get(name).copied();
            let other = place.filter(|place| *place != id as usize);
            other.ok_or_else(|| SetupError::Fallback {
                model: model.name.clone(),
                fallback: name.clone(),
            })
        });
        let fallbacks = fallbacks.collect::<Result<_, _>>()?;
        let deployments = (0..).zip(model.deployments);
        let deployments = deployments.map(|(number, setup)| {
            let deployment = self.deployment((&model.name, id, number), setup, &metrics);
            deployment.map(Arc::new)
        });
        let deployments = deployments.collect::<Result<Vec<_>, _>>()?;
        let pool = PoolSetup {
            is_adaptive: deployments.iter().any(|deployment| deployment.is_adaptive),
            most: model.concurrency,
            wait: model.queue_wait,
            queue: model.queue_length,
        };
        let pool = Arc::new(Pool::new(&model.name, pool, Arc::clone(&metrics)));
        self.workers
            .spawn(Arc::clone(&pool).give_turns(self.stop_workers.clone()));
        for deployment in deployments.iter().filter(|deployment| deployment.tells_waiting()) {
            let watching = watch_waiting(Arc::clone(deployment), Arc::clone(&pool));
            let stop = self.stop_workers.clone();
            self.workers.spawn(async move {
                stop.run_until_cancelled_owned(watching).await;
            });
        }
        Ok(Route {
            id,
            pool,
            deployments,
            retries: Mutex::default(),
            fallbacks,
            name,
            aliases: model.aliases,
            chat_template_for_prompts: model.chat_template_for_prompts,
            default_output_tokens: model.default_output_tokens,
            price: model.price,
            answer_lengths: Arc::new(AnswerLengths::new()),
            metrics,
        })
    }

    fn deployment(
        &self,
        (model, id, number): (&str, u32, u32),
        setup: DeploymentSetup,
        metrics: &ModelMetrics,
    ) -> Result<Deployment, SetupError> {
        match setup {
            DeploymentSetup::Worker(setup) => {
                let is_adaptive = setup.is_adaptive;
                let worker = Worker::start(
                    model,
                    id,
                    setup,
                    metrics.restarts.clone(),
                    self.socket_folder,
                    self.workers,
                    self.stop_workers.clone(),
                );
                Ok(Deployment::worker(model, worker, is_adaptive, self.wall_clock))
            }
            DeploymentSetup::Remote(mut setup) => {
                let quotas = setup
                    .limits
                    .take()
                    .map(|limits| self.quotas(limits))
                    .transpose()?;
                Deployment::remote((model, number), setup, quotas, &self.proxies, self.wall_clock)
            }
        }
    }

    /// What one deployment may be asked for.
    fn quotas(&self, policy: PolicySetup) -> Result<Arc<Limits>, SetupError> {
        let limits = Limits::start(vec![policy], Names::default(), self.wall_clock, None)?;
        let limits = Arc::new(limits);
        self.workers
            .spawn(keep_house(Arc::clone(&limits), self.stop_workers.clone()));
        Ok(limits)
    }
}
