use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use llm_engine_gateway::Gateway;

use crate::connections::MOST_CONNECTIONS;
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
    /// An app whose metrics are all zero.
    #[must_use]
    pub fn new(
        gateway: Arc<Gateway>,
        trusted_proxies: Vec<IpNet>,
        replay: ReplaySetup,
        listening: Listening,
    ) -> Self {
        let metrics = Metrics::new();
        Self(Arc::new(AppShared {
            gateway,
            trusted_proxies,
            replays: Arc::new(Replays::new(replay, metrics.replay.clone())),
            metrics,
            listening,
        }))
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
