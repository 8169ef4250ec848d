//! Many rows through clients, each answered exactly once, also over crashes: what `llm-engine batch` and the Python package's
//! `Batch` do.
//!
//! [`llm_engine_batch`] has the rows, the journal and the output, and knows no HTTP; here is the sender that it is given.
//! Refusals are waited out here, for as long as the server says and in the line that all calls to the model stand in, so
//! they are never a row's failure.

mod answers;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use llm_engine_batch::{Answer, Consequence, Failed, Form, Request, Row, RowError, Usage, Work};
use llm_engine_retry::{Backoff, Retry, Stop};
use serde_json::{Map, Value};

use crate::{Builder, Client, Error, ErrorKind};

pub use self::requests::Dialect;

/// Sends rows, by one client for each API key.
#[derive(Debug)]
pub struct Sender {
    clients: Vec<Client>,
    dialect: Dialect,
    defaults: Map<String, Value>,
    form: Form,
    prices: Prices,
    check: Option<Check>,
    refusals: Arc<AtomicU64>,
}

/// What says whether an answer's text will do, and if not, why.
pub type CheckText = dyn Fn(&str) -> Result<(), String> + Send + Sync;

struct Check(Box<CheckText>);

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

/// What tokens cost, in billionths of a dollar each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prices {
    /// Of a token of the prompt.
    pub nano_usd_per_input_token: u64,
    /// Of a token that is generated.
    pub nano_usd_per_output_token: u64,
}

/// Whoever takes longer than this for one answer is asked again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// What an answer is believed to take at most if nobody has said it.
const OUTPUT_TOKENS: u64 = 1024;
/// How many bytes of a row are a token of its prompt, at least; as a rule they are four.
const BYTES_PER_TOKEN: u64 = 3;

impl Sender {
    /// Sends by a client of each of these; rows get the `defaults` for fields that they don't have.
    ///
    /// # Panics
    /// If there are no clients.
    ///
    /// # Errors
    /// [`BuildError`](crate::BuildError), if one can't be made.
    pub fn new(
        clients: impl IntoIterator<Item = Builder>,
        dialect: Dialect,
        defaults: Map<String, Value>,
        form: Form,
    ) -> Result<Self, crate::BuildError> {
        // What is told when to come back does so for as long as it takes; for everything else the batch decides.
        let retry = Retry::new(Backoff::default(), Stop::after_attempts(1))
            .count_hinted(false)
            .longest_hint(Duration::MAX);
        let clients: Result<Vec<Client>, _> = clients
            .into_iter()
            .map(|builder| {
                let builder = builder.timeout(Duration::MAX).attempt_timeout(ATTEMPT_TIMEOUT);
                builder.retry(retry.clone()).build()
            })
            .collect();
        let clients = clients?;
        assert!(!clients.is_empty(), "a sender needs a client");
        Ok(Self {
            clients,
            dialect,
            defaults,
            form,
            prices: Prices::default(),
            check: None,
            refusals: Arc::default(),
        })
    }

    /// What the answers cost.
    #[must_use]
    pub fn prices(self, prices: Prices) -> Self {
        Self { prices, ..self }
    }

    /// Has each answer's text looked at. One that will not do is asked for again.
    #[must_use]
    pub fn check(self, check: Box<CheckText>) -> Self {
        Self {
            check: Some(Check(check)),
            ..self
        }
    }

    /// How often a row was told to come later.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// For how long no row of this model leaves, whoever sends it.
    #[must_use]
    pub fn held_for(&self, model: &str) -> Duration {
        let held = self.clients.iter().map(|client| client.held_for(model));
        held.min().unwrap_or_default()
    }

    /// Returns when the servers have been told of every row that was given up on its way.
    pub async fn cancelled(&self) {
        for client in &self.clients {
            client.cancelled().await;
        }
    }

    /// What a row takes at most, as far as that can be told: see [`Work::bound`].
    #[must_use]
    pub fn bound_of(&self, row: &Row) -> Usage {
        let fallback = || {
            let names = ["max_new_tokens", "max_completion_tokens", "max_tokens"];
            names.iter().find_map(|name| self.defaults.get(*name)?.as_u64())
        };
        let output_tokens = row.max_output_tokens().or_else(fallback).unwrap_or(OUTPUT_TOKENS);
        self.priced((row.bytes as u64).div_ceil(BYTES_PER_TOKEN), output_tokens)
    }

    fn priced(&self, input_tokens: u64, output_tokens: u64) -> Usage {
        let Prices {
            nano_usd_per_input_token,
            nano_usd_per_output_token,
        } = self.prices;
        Usage {
            input_tokens,
            output_tokens,
            nano_usd: input_tokens
                .saturating_mul(nano_usd_per_input_token)
                .saturating_add(output_tokens.saturating_mul(nano_usd_per_output_token)),
        }
    }
}

impl Work for Sender {
    async fn send(&self, request: Request) -> Result<Answer, Failed> {
        let call = requests::call(self.dialect, &request.row, &self.defaults).map_err(|what| Failed {
            error: RowError::new("invalid_row", what),
            consequence: Consequence::EndRow,
            may_be_done: false,
        })?;
        let refusals = self.refusals.clone();
        let call = call.idempotency_key(request.key).comes_again().on_wait(Arc::new(
            move |_: &crate::Waiting<'_>| {
                refusals.fetch_add(1, Ordering::Relaxed);
            },
        ));
        let client = &self.clients[request.sender as usize % self.clients.len()];
        let answer = client.call(call).await.map_err(|error| failed(&error))?;
        let mut answer = answers::read(&answer, self.form)?;
        answer.usage = self.priced(answer.usage.input_tokens, answer.usage.output_tokens);
        Ok(answer)
    }

    fn bound(&self, row: &Row) -> Usage {
        self.bound_of(row)
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        match &self.check {
            None => Ok(()),
            Some(Check(check)) => check(answer.text.as_deref().unwrap_or_default()),
        }
    }
}

/// What follows from a call that failed.
fn failed(error: &Error) -> Failed {
    let consequence = match error.kind() {
        ErrorKind::Invalid if matches!(error.code(), Some("answer_not_kept" | "cancelled")) => {
            Consequence::TryAnew
        }
        ErrorKind::Invalid | ErrorKind::NotFound => Consequence::EndRow,
        ErrorKind::Unauthorized | ErrorKind::BudgetSpent => Consequence::EndRun,
        ErrorKind::Refused if error.is_transient() => Consequence::ComeAgain,
        _ if error.is_transient() || error.kind() == ErrorKind::Unexpected => Consequence::TryAgain,
        _ => Consequence::EndRow,
    };
    Failed {
        error: RowError {
            code: error
                .code()
                .map_or_else(|| word(error.kind()).to_owned(), str::to_owned),
            message: error.message().to_owned(),
            status: error.status(),
        },
        consequence,
        may_be_done: error.kind() == ErrorKind::Connection && error.was_sent(),
    }
}

/// For errors to which the server gave no code.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Refused => "rate_limited",
        ErrorKind::BudgetSpent => "budget_exhausted",
        ErrorKind::Invalid => "invalid_request",
        ErrorKind::Unauthorized => "unauthorized",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Server => "server_error",
        ErrorKind::Connection | ErrorKind::BrokenOff => "connection",
        ErrorKind::Deadline => "deadline",
        ErrorKind::Unexpected => "unexpected_answer",
    }
}
