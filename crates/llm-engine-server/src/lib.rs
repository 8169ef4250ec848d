//! The HTTP face of LLM Engine: routes, configuration, health.
//!
//! - [`config`]: one TOML file, read and checked once; reading it binds no port
//! - [`rate_limit_headers`]: how the caller's quotas stand, on every answer
//! - [`serve`]: answers requests on a listener until it is told to drain
//!
//! What a request means is decided in the gateway; here it is read, and its answer written.

mod api;
mod app;
mod arrival;
mod authorization;
mod batches;
pub mod config;
mod connections;
mod cores;
mod disk;
mod error_answer;
mod event_stream;
mod files;
#[cfg(test)]
mod fuzz;
mod metrics;
pub mod policy_words;
pub mod rate_limit_headers;
mod rate_limits_page;
mod reload;
mod replay;
mod request_body;
mod routes;
mod serve;
mod tls;

pub use app::{App, AppShared, Listening};
pub use batches::{BatchesSetup, Storage, StorageError};
pub use cores::Cores;
pub use files::FilesSetup;
pub use llm_engine_gateway::{
    Counted, Gateway, Per, PolicySetup, ProxySetup, Quota, RouteStatus, Setup, TelemetrySetup, Unit,
    WorkerSetup,
};
pub use reload::Reloader;
pub use replay::ReplaySetup;
pub use routes::openapi;
pub use serve::{Drained, serve};
pub use tls::{Tls, TlsSetup};
