use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use llm_engine_gateway::Gateway;

use crate::connections::MOST_CONNECTIONS;
use crate::metrics::Metrics;
use crate::replay::Replays;
use crate::{ReplaySetup, Tls};

/// What every route can reach.
#[derive(Debug, Clone)]
pub struct App {
    /// Carries requests to models.
    pub gateway: Arc<Gateway>,
    /// Proxies that are believed where a request comes from.
    pub trusted_proxies: Arc<[IpNet]>,
    /// What is counted for monitoring.
    pub metrics: Arc<Metrics>,
    /// By which the listener proves who it is; without it, it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// How many connections there may be.
    pub most_connections: NonZeroUsize,
    /// What belongs to idempotency keys.
    pub(crate) replays: Arc<Replays>,
}

impl App {
    /// An app whose metrics are all zero, and that is served without TLS.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, trusted_proxies: Vec<IpNet>, replay: ReplaySetup) -> Self {
        let metrics = Metrics::new();
        Self {
            gateway,
            trusted_proxies: trusted_proxies.into(),
            replays: Arc::new(Replays::new(replay, metrics.replay.clone())),
            metrics: Arc::new(metrics),
            tls: None,
            most_connections: MOST_CONNECTIONS,
        }
    }
}

impl FromRef<App> for Arc<Gateway> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.gateway)
    }
}
