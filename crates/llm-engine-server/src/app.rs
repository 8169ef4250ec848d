use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use llm_engine_gateway::Gateway;

use crate::metrics::Metrics;

/// What every route can reach.
#[derive(Debug, Clone)]
pub struct App {
    /// Carries requests to models.
    pub gateway: Arc<Gateway>,
    /// Proxies that are believed where a request comes from.
    pub trusted_proxies: Arc<[IpNet]>,
    /// What is counted for monitoring.
    pub metrics: Arc<Metrics>,
}

impl App {
    /// An app whose metrics are all zero.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            gateway,
            trusted_proxies: trusted_proxies.into(),
            metrics: Arc::new(Metrics::new()),
        }
    }
}

impl FromRef<App> for Arc<Gateway> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.gateway)
    }
}
