//! Which requests are known by name, so that the gateway can cancel one and learn what it used.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llm_engine_wire::openai::Usage;
use tokio::sync::watch;

use crate::cancel::CancelFlag;

/// How many finished requests are remembered: a cancel that races with the end still gets the exact number.
const REMEMBERED: usize = 1024;

/// The requests that were named: the unfinished ones, and the last [`REMEMBERED`] finished ones.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    // A std mutex: held for a few map operations, never across an await.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    unfinished: HashMap<String, Unfinished>,
    finished: HashMap<String, Usage>,
    /// The keys of `finished`, oldest first.
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Unfinished {
    cancel: CancelFlag,
    usage: watch::Receiver<Option<Usage>>,
}

/// What the registry knows about a request that shall end.
#[derive(Debug)]
pub(crate) enum Found {
    /// It has ended before.
    Finished(Usage),
    /// It ends now; the final usage arrives here. The sender goes away without one if the request was refused.
    Ending(watch::Receiver<Option<Usage>>),
}

/// A request of that name is running already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request of that id is running")]
pub(crate) struct AlreadyRunning;

/// A request's entry, from its first header to its last token.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    /// `None` for a request without a name, and once it is settled.
    id: Option<String>,
    cancel: CancelFlag,
    usage: watch::Sender<Option<Usage>>,
}

impl Registry {
    /// Enters a request. Without a name it can be cancelled by hanging up only.
    ///
    /// # Errors
    /// [`AlreadyRunning`]: two requests of one name could not be told apart.
    pub(crate) fn register(self: &Arc<Self>, id: Option<String>) -> Result<Registration, AlreadyRunning> {
        let cancel = CancelFlag::default();
        let (sender, receiver) = watch::channel(None);
        if let Some(id) = &id {
            let mut known = self.lock();
            if known.unfinished.contains_key(id) {
                return Err(AlreadyRunning);
            }
            known.unfinished.insert(
                id.clone(),
                Unfinished {
                    cancel: cancel.clone(),
                    usage: receiver,
                },
            );
        }
        Ok(Registration {
            registry: Arc::clone(self),
            id,
            cancel,
            usage: sender,
        })
    }

    /// Cancels the request of that name, if it is unfinished.
    pub(crate) fn cancel(&self, id: &str) -> Option<Found> {
        let known = self.lock();
        // The unfinished first: a name can be used again after its request has ended.
        if let Some(unfinished) = known.unfinished.get(id) {
            unfinished.cancel.set();
            return Some(Found::Ending(unfinished.usage.clone()));
        }
        known.finished.get(id).copied().map(Found::Finished)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // No operation under the lock can leave the maps half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, id: String, usage: Usage) {
        if self.finished.insert(id.clone(), usage).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.finished.remove(&oldest);
            }
        }
    }
}

impl Registration {
    pub(crate) fn cancel_flag(&self) -> CancelFlag {
        self.cancel.clone()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }

    /// Notes what the request has used, for whoever cancels or has cancelled it.
    pub(crate) fn settle(&mut self, usage: Usage) {
        if let Some(id) = self.id.take() {
            let mut known = self.registry.lock();
            known.unfinished.remove(&id);
            known.remember(id, usage);
        }
        self.usage.send_replace(Some(usage));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.registry.lock().unfinished.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
