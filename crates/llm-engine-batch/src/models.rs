//! The rows that have been read and not begun, by model, and the lanes that they go by.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::Row;
use crate::lane::{Lane, Pending};

/// A row that waits to be begun. One that was sent before a crash goes by the sender that it went by then: only with the
/// same API key the server knows it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) row: Row,
    pub(crate) sender: Option<u32>,
}

/// All models of which there are rows.
///
/// Rows are read somewhat ahead, so that those of a model that is slow, or refuses, do not keep those of another; and each
/// lane has an equal share of the places there are.
#[derive(Debug)]
pub(crate) struct Models {
    models: BTreeMap<String, Model>,
    senders: u32,
    waiting: usize,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Model {
    waiting: VecDeque<Waiting>,
    lanes: Vec<Lane>,
}

/// How many rows wait at most, and what they may take of the memory.
const WAITING_ROWS: usize = 1024;
const WAITING_BYTES: usize = 32 << 20;

impl Models {
    pub(crate) fn new(senders: u32) -> Self {
        Self {
            models: BTreeMap::new(),
            senders: senders.max(1),
            waiting: 0,
            waiting_bytes: 0,
        }
    }

    /// Whether to read on.
    pub(crate) fn wants_rows(&self) -> bool {
        self.waiting < WAITING_ROWS && self.waiting_bytes < WAITING_BYTES
    }

    pub(crate) fn add(&mut self, waiting: Waiting) {
        self.waiting += 1;
        self.waiting_bytes += waiting.row.bytes;
        let senders = self.senders;
        let model = self.models.entry(waiting.row.model().to_owned());
        let model = model.or_insert_with(|| Model {
            waiting: VecDeque::new(),
            lanes: (0..senders).map(|_| Lane::default()).collect(),
        });
        model.waiting.push_back(waiting);
    }

    pub(crate) fn lane(&mut self, row: &Row, sender: u32) -> &mut Lane {
        let model = self.models.get_mut(row.model());
        let model = model.expect("a model stays while there are rows of it");
        &mut model.lanes[sender as usize]
    }

    /// Rows that wait or are on their way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0 && self.taken() == 0
    }

    fn taken(&self) -> usize {
        self.lanes().map(Lane::taken).sum()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.models.values().flat_map(|model| &model.lanes)
    }

    /// The next row to be sent again.
    pub(crate) fn next_again(&mut self, now: Instant) -> Option<Pending> {
        let mut lanes = self.models.values_mut().flat_map(|model| &mut model.lanes);
        lanes.find_map(|lane| lane.next_again(now))
    }

    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.lanes().filter_map(Lane::wakes_at).min()
    }

    /// The next row to be begun, and by which sender, if there is a place for one.
    pub(crate) fn next_new(&mut self, concurrency: usize) -> Option<(Waiting, u32)> {
        let free = concurrency.checked_sub(self.taken()).filter(|free| *free > 0);
        free?;
        let active = self.models.values().filter(|model| model.is_active()).count();
        let share = (concurrency / (active * self.senders as usize).max(1)).max(1);
        let found = self.models.values().filter_map(|model| {
            let waiting = model.waiting.front()?;
            let sender = model.freest_sender(waiting.sender, share)?;
            Some((model.lanes[sender as usize].taken(), waiting.row.model(), sender))
        });
        let (_, name, sender) = found.min()?;
        let name = name.to_owned();
        let waiting = self.models.get_mut(&name)?.waiting.pop_front()?;
        self.waiting -= 1;
        self.waiting_bytes -= waiting.row.bytes;
        Some((waiting, sender))
    }

    /// Puts a row back that can't be begun yet.
    pub(crate) fn put_back(&mut self, waiting: Waiting) {
        self.waiting += 1;
        self.waiting_bytes += waiting.row.bytes;
        if let Some(model) = self.models.get_mut(waiting.row.model()) {
            model.waiting.push_front(waiting);
        }
    }

    /// Forgets models without rows, if there are many.
    pub(crate) fn forget_idle(&mut self) {
        const MANY: usize = 64;
        if self.models.len() > MANY {
            self.models.retain(|_, model| model.is_active());
        }
    }
}

impl Model {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.lanes.iter().any(|lane| lane.taken() > 0)
    }

    fn freest_sender(&self, only: Option<u32>, share: usize) -> Option<u32> {
        let lanes = (0_u32..).zip(&self.lanes);
        let open = lanes.filter(|(sender, lane)| {
            only.is_none_or(|only| only == *sender) && lane.is_open() && lane.taken() < share
        });
        open.min_by_key(|(_, lane)| lane.taken())
            .map(|(sender, _)| sender)
    }
}

impl Waiting {
    /// As it is begun.
    pub(crate) fn pending(self, sender: u32) -> Pending {
        Pending {
            row: Arc::new(self.row),
            sender,
            round: 0,
            attempts: 0,
            sent: 0,
            answers_seen: 0,
            unknown: 0,
            reserved: crate::Usage::default(),
            spent: crate::Usage::default(),
        }
    }
}
