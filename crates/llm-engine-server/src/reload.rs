use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::App;
use crate::config::{Config, ConfigError};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Puts a changed configuration in force while the server runs. One that can't be used changes nothing.
#[derive(Debug)]
pub struct Reloader {
    app: App,
    path: PathBuf,
    /// What the server was started with: what a reload does not change is compared with this.
    started: Config,
    /// When the file and those of its certificate were changed last, as far as it could be seen.
    changed: [Option<SystemTime>; 3],
}

impl Reloader {
    /// For a server that was started with what the file said.
    #[must_use]
    pub fn new(app: App, path: PathBuf, started: Config) -> Self {
        let changed = changed(&path, &started);
        Self {
            app,
            path,
            started,
            changed,
        }
    }

    /// Reads the file again whenever it changes and whenever it is told to; never returns.
    pub async fn run(mut self, told: Arc<Notify>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = told.notified() => self.reload(),
                _ = looks.tick() => if self.has_changed() { self.reload() },
            }
        }
    }

    /// Reads the file again. What is wrong with it, or needs a restart, is said in the log.
    pub fn reload(&mut self) {
        self.changed = changed(&self.path, &self.started);
        let path = self.path.display();
        match self.try_reload() {
            Ok(restart_needed) => {
                self.app.metrics.reloaded(true);
                tracing::info!(%path, "the configuration was read again and is in force");
                if !restart_needed.is_empty() {
                    let settings = restart_needed.join(", ");
                    tracing::warn!(%path, settings, "these settings have changed and need a restart");
                }
            }
            Err(error) => {
                self.app.metrics.reloaded(false);
                tracing::error!(%error, "the configuration can't be used; what was in force before still is");
            }
        }
    }

    fn try_reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        let config = Config::read(&self.path)?;
        // The address and the proxies of the start stay in force.
        let is_reachable =
            !self.started.listen.ip().is_loopback() || !self.started.trusted_proxies.is_empty();
        if config.development_key && is_reachable {
            return Err(ReloadError::DevelopmentKey);
        }
        let restart_needed = self.started.restart_needed_for(&config);
        self.app.gateway.reload(config.callers, config.policies)?;
        if let (Some(tls), Some(setup)) = (&self.app.listening.tls, config.tls) {
            tls.replace(setup);
        }
        Ok(restart_needed)
    }

    fn has_changed(&self) -> bool {
        changed(&self.path, &self.started) != self.changed
    }
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Setup(#[from] llm_engine_gateway::SetupError),
    /// Others could use it.
    #[error(
        "without callers there is only the development key, which is for this machine only; this server was started where \
         others can reach it"
    )]
    DevelopmentKey,
}

/// A certificate is renewed by writing its files anew, which nobody tells us.
fn changed(path: &Path, config: &Config) -> [Option<SystemTime>; 3] {
    let tls = config.tls.as_ref();
    let files = [
        Some(path),
        tls.map(|tls| tls.certificate.as_path()),
        tls.map(|tls| tls.key.as_path()),
    ];
    files.map(|file| std::fs::metadata(file?).and_then(|file| file.modified()).ok())
}
