use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use llm_engine_gateway::Gateway;

use crate::batches::{Batches, Storage};
use crate::connections::MOST_CONNECTIONS;
use crate::error_answer::ErrorAnswer;
use crate::metrics::Metrics;
use crate::replay::Replays;
use crate::{ReplaySetup, Tls};

/// What every route can reach. It is cloned for each request.
#[derive(Debug, Clone)]
pub struct App(Arc<AppShared>);

/// What is in an [`App`].
#[derive(Debug)]
pub struct AppShared {
    /// Carries requests to models.
    pub gateway: Arc<Gateway>,
    /// Proxies that are believed where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// What is counted for monitoring.
    pub metrics: Metrics,
    /// What belongs to idempotency keys.
    pub(crate) replays: Arc<Replays>,
    /// Files and batches, if there is a folder for them.
    pub(crate) batches: Option<Arc<Batches>>,
    /// How it is reached.
    pub(crate) listening: Listening,
}

/// How a server is reached.
#[derive(Debug)]
pub struct Listening {
    /// By which it proves who it is; without it, it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// How many connections there may be.
    pub connections: NonZeroUsize,
}

impl Default for Listening {
    /// Without TLS.
    fn default() -> Self {
        Self {
            tls: None,
            connections: MOST_CONNECTIONS,
        }
    }
}

impl App {
    /// An app whose metrics are all zero. Batches that have not ended go on; that needs a tokio runtime.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        trusted_proxies: Vec<IpNet>,
        replay: ReplaySetup,
        listening: Listening,
        storage: Option<Storage>,
    ) -> Self {
        let metrics = Metrics::new(&gateway);
        let start = |storage| Batches::start(storage, Arc::clone(&gateway), metrics.batches.clone());
        Self(Arc::new(AppShared {
            batches: storage.map(start),
            gateway,
            trusted_proxies,
            replays: Arc::new(Replays::new(replay, metrics.replay.clone())),
            metrics,
            listening,
        }))
    }
}

impl AppShared {
    /// Files and batches.
    pub(crate) fn batches(&self) -> Result<&Arc<Batches>, ErrorAnswer> {
        self.batches.as_ref().ok_or_else(|| {
            let message = "This server keeps no files and no batches, because it has no folder for them; set `state_folder` in \
                           its configuration.";
            ErrorAnswer::not_implemented(message.to_owned())
        })
    }
}

impl Deref for App {
    type Target = AppShared;

    fn deref(&self) -> &AppShared {
        &self.0
    }
}

impl FromRef<App> for Arc<Gateway> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.gateway)
    }
}
