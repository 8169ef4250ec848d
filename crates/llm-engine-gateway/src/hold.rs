use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The requests that are held until their booked time, instead of being refused. Each needs memory, so their number and
/// their size are bounded; who finds no room is refused.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    by_caller: HashMap<u32, Sum>,
    all: Sum,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    requests: usize,
    bytes: usize,
}

/// The most of one caller, and of all.
const MOST_OF_ONE: Sum = Sum {
    requests: 1_000,
    bytes: 32 * 1024 * 1024,
};
const MOST: Sum = Sum {
    requests: 10_000,
    bytes: 256 * 1024 * 1024,
};

/// A request that is held. Dropped before [`Self::ended`], its caller has gone, and nobody will come for its time.
pub(crate) struct Held {
    holding: Arc<Holding>,
    caller: u32,
    bytes: usize,
    /// Whether its time is kept for it. If not, one that is kept for an equal request is not its own to give up.
    pub(crate) is_booked: bool,
    give_up: Box<dyn Fn() + Send>,
}

impl Holding {
    /// Holds a request, if there is room. `give_up` is called if its caller goes while its time is kept.
    pub(crate) fn enter(
        self: &Arc<Self>,
        caller: u32,
        bytes: usize,
        give_up: impl Fn() + Send + 'static,
    ) -> Option<Held> {
        let mut count = self.count();
        let own = count.by_caller.get(&caller).copied().unwrap_or_default();
        let (own, all) = (own.with(bytes, MOST_OF_ONE)?, count.all.with(bytes, MOST)?);
        count.by_caller.insert(caller, own);
        count.all = all;
        Some(Held {
            holding: Arc::clone(self),
            caller,
            bytes,
            is_booked: false,
            give_up: Box::new(give_up),
        })
    }

    /// How many are held now.
    pub(crate) fn held(&self) -> usize {
        self.count().all.requests
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    /// With one more, if that is not too much.
    fn with(self, bytes: usize, most: Self) -> Option<Self> {
        let sum = Self {
            requests: self.requests + 1,
            bytes: self.bytes + bytes,
        };
        (sum.requests <= most.requests && sum.bytes <= most.bytes).then_some(sum)
    }

    fn without(self, bytes: usize) -> Self {
        Self {
            requests: self.requests - 1,
            bytes: self.bytes - bytes,
        }
    }
}

impl Held {
    /// It was admitted, or refused after all: the caller has been there until the end.
    pub(crate) fn ended(mut self) {
        self.is_booked = false;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut count = self.holding.count();
        count.all = count.all.without(self.bytes);
        if let Some(own) = count.by_caller.get_mut(&self.caller) {
            *own = own.without(self.bytes);
            if own.requests == 0 {
                count.by_caller.remove(&self.caller);
            }
        }
        drop(count);
        if self.is_booked {
            (self.give_up)();
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}
