use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Answer, Failed, Row, Usage};

/// What is done with each row.
pub trait Work: Sync {
    /// Has a row answered. Who is told to come back at a time does so by itself, however often: it is no failure. Dropped, it is
    /// cancelled.
    fn send(&self, request: Request) -> impl Future<Output = Result<Answer, Failed>> + Send;

    /// The most that a row can take, as far as that is known: what the bounds on money and tokens reserve for it.
    fn bound(&self, _row: &Row) -> Usage {
        Usage::default()
    }

    /// Whether an answer will do.
    ///
    /// # Errors
    /// What is wrong with it. Another one is asked for then.
    fn check(&self, _answer: &Answer) -> Result<(), String> {
        Ok(())
    }
}

/// A row to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// The row.
    pub row: Arc<Row>,
    /// The name by which the server knows the row when it comes again, also after a crash: to be sent as its
    /// `Idempotency-Key`.
    pub key: String,
    /// By which of the senders it goes, from 0.
    pub sender: u32,
}

/// How a run is done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most rows on their way. They are fewer wherever the servers say so.
    pub concurrency: usize,
    /// How many senders there are that can do the same, such as API keys.
    pub senders: u32,
    /// How often a row is sent at most before it is answered by its error. What says when to come back does not count, nor
    /// what befalls all rows.
    pub max_attempts: u32,
    /// For how long it is waited for servers that don't answer anything, before the run ends.
    pub patience: Duration,
    /// When the run ends in any case.
    pub deadline: Option<Instant>,
    /// What all answers together may take at most: tokens, and money.
    pub most: Most,
    /// Only so many rows, evenly spread.
    pub sample: Option<u64>,
}

/// What all answers of a run together may take at most, those of earlier sessions included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Most {
    /// Input and output tokens.
    pub tokens: Option<u64>,
    /// Money, in billionths of a dollar.
    pub nano_usd: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 256,
            senders: 1,
            max_attempts: 6,
            patience: Duration::from_secs(3600),
            deadline: None,
            most: Most::default(),
            sample: None,
        }
    }
}

impl Most {
    pub(crate) fn allows(&self, usage: &Usage) -> bool {
        self.tokens.is_none_or(|most| usage.tokens() <= most)
            && self.nano_usd.is_none_or(|most| usage.nano_usd <= most)
    }
}
