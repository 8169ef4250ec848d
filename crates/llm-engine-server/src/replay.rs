//! What a repeated request is worth: one with an `Idempotency-Key` is generated, charged and reported once, however often
//! it is sent.
//!
//! Every keyed request runs its route's handler in a task of its own, which records the answer; whoever sent it, the first
//! one too, is a listener of the recording. So a connection that breaks takes nothing with it but a listener: the same
//! request that comes again listens to the same work from its beginning, and finds the whole answer for a while after the
//! end. It happens at the level of HTTP and knows nothing of what a route answers, except how a stream ends.
//!
//! - `claim.rs`: what the headers ask for, and whether two requests are the same
//! - `recording.rs`: one answer as it comes, and who listens
//! - `table.rs`: which work and which answer belongs to a key, and for how long; its bounds
//!
//! What ends in anything but a complete success is told to all who listen, and then the key is free: a refusal that was
//! stored would be told to a caller who comes back when it was told to. Nothing is swept: what is too old goes when the next
//! keyed request comes.

mod claim;
mod memory;
mod recording;
mod table;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use llm_engine_gateway::Caller;
use tokio::time::Instant;

use crate::App;
use crate::arrival::IDEMPOTENCY_KEY;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::event_stream::Ending;
use crate::metrics::ReplayMetrics;
use crate::request_body::read_body;
use crate::routes::{REQUEST_ID, named, new_request_id};

use memory::Memory;
use recording::{End, Head, Listener, Recording};
use table::{Found, Name, Table};

pub(crate) use claim::{Claim, InvalidClaim, check_key};

/// On answers that were not generated for this request: `true` if the answer was stored, `attached` if the work was running.
const REPLAYED: HeaderName = HeaderName::from_static("x-llm-engine-replayed");

/// For how long answers to keyed requests can be had again, and how much is kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplaySetup {
    /// How long after its end. Zero: not at all; then a repeated request only finds work that is running.
    pub keep: Duration,
    /// Of all answers together, those that are being recorded among them; for each that is running it may be one piece more.
    pub memory_bytes: usize,
    /// Of those of one caller, which make room for each other before those of others do.
    pub memory_bytes_per_caller: usize,
    /// Of one answer.
    pub answer_bytes: usize,
    /// Answers that are kept.
    pub answers: NonZeroUsize,
    /// Those of one caller.
    pub answers_per_caller: NonZeroUsize,
}

/// The work and the answers that belong to idempotency keys.
pub(crate) struct Replays {
    setup: ReplaySetup,
    /// Never held while something is waited for.
    table: Mutex<Table>,
    metrics: ReplayMetrics,
}

/// Whose answer a listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// That of work which began with its own request.
    Own,
    /// That of work which was running already.
    Running,
    /// That of work which had ended.
    Stored,
}

/// Answers a request of a route that generates, by its handler. Without an `Idempotency-Key`, or if nobody has the API key,
/// that is all. With one, the handler is asked only if no request with this key is running or stored for this caller and
/// path.
pub(crate) async fn answer<H, A>(app: App, request: Request, dialect: Dialect, handler: H) -> Response
where
    H: FnOnce(State<App>, Request) -> A + Send,
    A: Future<Output = Response> + Send + 'static,
{
    let is_keyed = request.headers().contains_key(IDEMPOTENCY_KEY);
    let caller = is_keyed.then(|| authorize(&app.gateway, request.headers()));
    // The handler knows in which order it complains; without a caller nothing has been looked up.
    let Some(Ok(caller)) = caller else {
        return handler(State(app), request).await;
    };
    let answered = Box::pin(answer_keyed(app, request, &caller, handler)).await;
    answered.unwrap_or_else(|error| {
        let request_id = new_request_id();
        named(error.in_dialect(dialect, &request_id), &request_id)
    })
}

async fn answer_keyed<H, A>(
    app: App,
    request: Request,
    caller: &Caller,
    handler: H,
) -> Result<Response, ErrorAnswer>
where
    H: FnOnce(State<App>, Request) -> A + Send,
    A: Future<Output = Response> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let claim = Claim::read(&parts.headers)?;
    let bytes = read_body(&app.gateway, &parts.headers, body).await?;
    let name = Arc::new(Name::new(caller.name.as_str(), parts.uri.path(), claim.key));
    let digest = claim::digest(parts.uri.query(), &bytes);
    let found = app
        .replays
        .table()
        .find(Instant::now(), &name, digest, claim.keep);
    if let Some(outcome) = found.outcome() {
        app.replays.metrics.repeated(outcome);
    }
    let (listener, source) = match found {
        Found::Nothing { work, listener } => {
            let replays = Arc::clone(&app.replays);
            let request = Request::from_parts(parts, Body::from(bytes));
            let answer = handler(State(app), request);
            let work = Work {
                replays,
                name: Arc::clone(&name),
                recording: work,
            };
            tokio::spawn(work.run(answer));
            (listener, Source::Own)
        }
        Found::Running(listener) => (listener, Source::Running),
        Found::Stored(listener) => (listener, Source::Stored),
        Found::Cancelled => return Err(ErrorAnswer::cancelled()),
        Found::OtherRequest => return Err(ErrorAnswer::idempotency_key_reused()),
        Found::NotKept => return Err(ErrorAnswer::answer_not_kept()),
    };
    let response = respond(listener, source).await?;
    if source != Source::Own {
        let request_id = response.headers().get(REQUEST_ID);
        let request_id = request_id.and_then(|id| id.to_str().ok());
        tracing::debug!(
            request_id,
            caller = caller.name.as_str(),
            path = &*name.path,
            ?source,
            "a request was repeated"
        );
    }
    Ok(response)
}

/// What a listener hears, as an answer of HTTP.
async fn respond(listener: Listener, source: Source) -> Result<Response, ErrorAnswer> {
    let head = listener.head().await.map_err(|end| match end {
        End::Cancelled => ErrorAnswer::cancelled(),
        End::Whole | End::Failed => ErrorAnswer::internal("the request failed inside the server".to_owned()),
    })?;
    let pieces = stream::unfold(listener, |mut listener| async move {
        let piece = listener.next().await?;
        Some((piece, listener))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let word = match source {
        Source::Own => return Ok(response),
        Source::Running => "attached",
        Source::Stored => "true",
    };
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static(word));
    Ok(response)
}

impl Replays {
    pub(crate) fn new(setup: ReplaySetup, metrics: ReplayMetrics) -> Self {
        let memory = Arc::new(Memory::new(setup.memory_bytes, setup.memory_bytes_per_caller));
        Self {
            setup,
            table: Mutex::new(Table::new(setup, memory, metrics.clone())),
            metrics,
        }
    }

    /// Cancels the work with this key of the caller on whatever path it runs, and forgets stored answers. Says whether
    /// something was running; `None` if there was nothing at all. What has been overtaken, and comes within `ahead`, is refused.
    pub(crate) fn cancel(&self, caller: &Caller, key: &str, ahead: Duration) -> Option<bool> {
        let now = Instant::now();
        let mut table = self.table();
        let was_running = table.forget(now, caller.name.as_str(), key);
        if !ahead.is_zero() {
            table.cancel_ahead(now, caller.name.as_str(), key, ahead);
        }
        was_running
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer may be recorded further; if need be, stored ones make room: those of its caller if that has its share,
    /// else the oldest.
    fn has_room(&self, name: &Name, recording: &Recording, bytes: usize) -> bool {
        if recording.bytes() + bytes > self.setup.answer_bytes {
            return false;
        }
        // At most for its share first, and then in all.
        for _ in 0..2 {
            let Err(full) = recording.room_for(bytes) else {
                return true;
            };
            // Their memory is given back without the lock.
            let dropped = self.table().make_room(full, name, bytes);
            drop(dropped);
        }
        recording.room_for(bytes).is_ok()
    }
}

impl fmt::Debug for Replays {
    /// Without the answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replays")
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}

/// A keyed request that is being answered. However it ends, its listeners hear of it, and the key is free or has its answer.
struct Work {
    replays: Arc<Replays>,
    name: Arc<Name>,
    recording: Arc<Recording>,
}

impl Work {
    /// Until the answer has ended, or nobody wants it any more: then it is dropped, which cancels and settles it.
    async fn run(self, answer: impl Future<Output = Response>) {
        tokio::select! {
            biased;
            () = self.recording.given_up() => {}
            () = self.record(answer) => {}
        }
    }

    async fn record(&self, answer: impl Future<Output = Response>) {
        let (mut parts, body) = answer.await.into_parts();
        let ending = parts.extensions.remove::<Ending>();
        let length = body.size_hint().exact();
        if let Some(length) = length {
            parts.headers.insert(CONTENT_LENGTH, length.into());
        }
        // Who hears of a failure may come again at once, and must not find it.
        if !parts.status.is_success() {
            self.free_key();
        }
        let is_success = parts.status.is_success();
        self.recording.begin(Head::from(parts), ending.clone());
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { return };
            if ending
                .as_ref()
                .is_some_and(|ending| ending.ended_well() == Some(false))
            {
                self.free_key();
            }
            self.add(piece).await;
        }
        // Of a body that comes in pieces only its writer knows whether it is whole.
        let ended_well = match &ending {
            Some(ending) => ending.ended_well() == Some(true),
            None => length.is_some(),
        };
        if is_success && ended_well {
            let dropped = self
                .replays
                .table()
                .keep(Instant::now(), &self.name, &self.recording);
            drop(dropped);
        } else {
            self.free_key();
        }
        self.recording.end(End::Whole);
    }

    async fn add(&self, piece: Bytes) {
        let recording = &self.recording;
        if recording.is_joinable()
            && !self
                .replays
                .has_room(&self.name, recording, recording::cost(&piece))
        {
            recording.overgrow();
        }
        // What is kept takes no more memory than is counted for it.
        let piece = if recording.is_joinable() {
            Bytes::copy_from_slice(&piece)
        } else {
            piece
        };
        recording.add(piece).await;
    }

    fn free_key(&self) {
        self.replays.table().free(&self.name, &self.recording);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.free_key();
        self.recording.end(End::Failed);
    }
}

#[cfg(test)]
mod tests;
