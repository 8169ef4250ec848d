use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::response::Parts;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::memory::{Full, Share};
use crate::error_answer::ErrorAnswer;
use crate::event_stream::Ending;
use crate::rate_limit_headers;

/// One answer as it comes: its head, then its pieces. Whoever listens hears it from its beginning.
///
/// All of it is recorded, so that nobody has to listen. An answer that grows beyond what may be recorded becomes a window of
/// what somebody has not heard yet: it can't be joined any more, its work waits for the listener that is furthest, and one
/// that is further behind than the window is wide hears that it broke off.
#[derive(Debug)]
pub(super) struct Recording {
    state: Mutex<State>,
    /// There is more to hear.
    grown: Notify,
    /// Somebody has come, gone or, where that makes room, heard more; or the work is given up.
    heard: Notify,
}

#[derive(Debug)]
struct State {
    memory: Arc<Share>,
    head: Option<Head>,
    /// How the stream ends, if it is one.
    ending: Option<Ending>,
    pieces: VecDeque<Bytes>,
    /// How many pieces came before those.
    dropped: u64,
    /// What the pieces cost, as far as it is counted.
    bytes: usize,
    /// How much a window may cost. `None`: everything is there from the beginning.
    window: Option<usize>,
    end: Option<End>,
    /// The next piece of each.
    listeners: BTreeMap<u64, u64>,
    next_listener: u64,
    /// Until when the work goes on although nobody listens.
    kept_until: Option<Instant>,
    /// Nobody can join any more, and the work ends.
    given_up: bool,
}

/// Status and headers of an answer.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// How the quotas stood, for the first listener alone: for everybody else that was some time ago.
    rate_limits: HeaderMap,
}

/// How a recording has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The answer says itself how it ends, well or with an error.
    Whole,
    /// Its caller wanted it to.
    Cancelled,
    /// Something broke in the server.
    Failed,
}

/// Why a recording can't be heard from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CannotJoin {
    /// Its work is given up; it may begin anew.
    GivenUp,
    /// Its beginning is gone.
    Overgrown,
}

/// Somebody who hears a recording. While there is one, its work goes on.
#[derive(Debug)]
pub(super) struct Listener {
    recording: Arc<Recording>,
    number: u64,
    /// How long the work goes on when this is dropped.
    keep: Duration,
}

/// What a listener hears can't go on: the connection is to break, or it would pass for the whole answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(super) struct BrokeOff;

/// What a piece costs: its bytes, and what it takes to have them.
pub(super) fn cost(piece: &Bytes) -> usize {
    const OVERHEAD: usize = 64;
    piece.len() + OVERHEAD
}

/// What an answer costs without its pieces.
const COST_OF_HEAD: usize = 2048;

impl From<Parts> for Head {
    fn from(mut parts: Parts) -> Self {
        // Who is refused is told at once, and all alike.
        let rate_limits = if parts.status.is_success() {
            rate_limit_headers::take(&mut parts.headers)
        } else {
            HeaderMap::new()
        };
        Self {
            status: parts.status,
            headers: parts.headers,
            rate_limits,
        }
    }
}

impl Recording {
    /// Of work that begins, with whoever asked for it.
    pub(super) fn begin_with(memory: Arc<Share>, keep: Duration) -> (Arc<Self>, Listener) {
        memory.take(COST_OF_HEAD);
        let state = State {
            memory,
            head: None,
            ending: None,
            pieces: VecDeque::new(),
            dropped: 0,
            bytes: COST_OF_HEAD,
            window: None,
            end: None,
            listeners: BTreeMap::from([(FIRST, 0)]),
            next_listener: FIRST + 1,
            kept_until: None,
            given_up: false,
        };
        let recording = Arc::new(Self {
            state: Mutex::new(state),
            grown: Notify::new(),
            heard: Notify::new(),
        });
        let listener = Listener {
            recording: Arc::clone(&recording),
            number: FIRST,
            keep,
        };
        (recording, listener)
    }

    /// One more listener, which hears everything from the beginning.
    pub(super) fn join(self: &Arc<Self>, keep: Duration) -> Result<Listener, CannotJoin> {
        let mut state = self.state();
        if state.given_up {
            return Err(CannotJoin::GivenUp);
        }
        if state.window.is_some() {
            return Err(CannotJoin::Overgrown);
        }
        let number = state.next_listener;
        state.next_listener += 1;
        state.listeners.insert(number, 0);
        Ok(Listener {
            recording: Arc::clone(self),
            number,
            keep,
        })
    }

    pub(super) fn begin(&self, head: Head, ending: Option<Ending>) {
        let mut state = self.state();
        if state.end.is_none() {
            (state.head, state.ending) = (Some(head), ending);
        }
        drop(state);
        self.grown.notify_waiters();
    }

    /// Adds what came. Waits only where there is no more than a window.
    pub(super) async fn add(&self, piece: Bytes) {
        loop {
            let heard = self.heard.notified();
            if self.state().add(&piece) {
                break;
            }
            heard.await;
        }
        self.grown.notify_waiters();
    }

    /// Ends it, unless it has ended otherwise before.
    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.grown.notify_waiters();
    }

    /// Ends it with an error for all who listen, and gives the work up. Says whether it had not ended before.
    pub(super) fn cancel(&self) -> bool {
        let mut state = self.state();
        let was_running = state.end.is_none() && !state.given_up;
        if was_running {
            if let Some(ending) = &state.ending {
                let last = ending.error_event(ErrorAnswer::cancelled());
                state.push(last);
            }
            state.end = Some(End::Cancelled);
        }
        state.given_up = true;
        drop(state);
        self.grown.notify_waiters();
        self.heard.notify_waiters();
        was_running
    }

    /// Returns when the work is not wanted any more: it was cancelled, or nobody listens and the time is over for which it was
    /// to go on without. From then on nobody can join.
    pub(super) async fn given_up(&self) {
        loop {
            let heard = self.heard.notified();
            let until = match self.state().wanted(Instant::now()) {
                Wanted::Always => None,
                Wanted::Until(until) => Some(until),
                Wanted::No => return,
            };
            match until {
                None => heard.await,
                Some(until) => {
                    // Whichever it was is looked at again.
                    let _ = timeout_at(until, heard).await;
                }
            }
        }
    }

    /// From now on there is only a window.
    pub(super) fn overgrow(&self) {
        let mut state = self.state();
        state.window = Some(state.bytes);
        drop(state);
        self.heard.notify_waiters();
    }

    /// Whether it is all there from the beginning.
    pub(super) fn is_joinable(&self) -> bool {
        self.state().window.is_none()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.state().given_up
    }

    pub(super) fn is_heard(&self) -> bool {
        !self.state().listeners.is_empty()
    }

    /// Whether there is memory for so many more bytes.
    pub(super) fn room_for(&self, bytes: usize) -> Result<(), Full> {
        self.state().memory.room_for(bytes)
    }

    /// What it costs.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the listener whose request the work began with.
const FIRST: u64 = 0;

enum Wanted {
    Always,
    Until(Instant),
    No,
}

impl State {
    /// Adds a piece, unless the window has to move first.
    fn add(&mut self, piece: &Bytes) -> bool {
        if self.end.is_some() {
            return true;
        }
        if let Some(window) = self.window {
            let slowest = self.listeners.values().min().copied();
            self.drop_before(slowest.unwrap_or(u64::MAX));
            let is_full = |state: &Self| !state.pieces.is_empty() && state.bytes + cost(piece) > window;
            let furthest = self.listeners.values().max().copied().unwrap_or(u64::MAX);
            while is_full(self) && self.dropped < furthest {
                self.drop_before(self.dropped + 1);
            }
            if is_full(self) {
                return false;
            }
        }
        self.push(piece.clone());
        true
    }

    fn push(&mut self, piece: Bytes) {
        let cost = cost(&piece);
        self.memory.take(cost);
        self.bytes += cost;
        self.pieces.push_back(piece);
    }

    /// Drops the pieces before this one.
    fn drop_before(&mut self, number: u64) {
        while self.dropped < number
            && let Some(piece) = self.pieces.pop_front()
        {
            self.dropped += 1;
            self.bytes -= cost(&piece);
            self.memory.give_back(cost(&piece));
        }
    }

    /// How long the work goes on if nobody comes. What can't be joined is of no use to who comes again.
    fn wanted(&mut self, now: Instant) -> Wanted {
        if self.given_up {
            return Wanted::No;
        }
        if !self.listeners.is_empty() {
            return Wanted::Always;
        }
        match self.kept_until {
            Some(until) if until > now && self.window.is_none() => Wanted::Until(until),
            _ => {
                self.given_up = true;
                Wanted::No
            }
        }
    }

    /// What a listener hears next; `None` if there is nothing yet.
    fn hear(&mut self, number: u64) -> Option<Option<Result<Bytes, BrokeOff>>> {
        let next = self.listeners.get_mut(&number)?;
        let Some(index) = next.checked_sub(self.dropped) else {
            return Some(Some(Err(BrokeOff)));
        };
        let piece = usize::try_from(index)
            .ok()
            .and_then(|index| self.pieces.get(index));
        if let Some(piece) = piece {
            *next += 1;
            return Some(Some(Ok(piece.clone())));
        }
        match self.end? {
            End::Whole => Some(None),
            // The last piece has told of it.
            End::Cancelled if self.ending.is_some() => Some(None),
            End::Cancelled | End::Failed => Some(Some(Err(BrokeOff))),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

impl Listener {
    /// Waits for the answer's head; an error if it ends without one.
    pub(super) async fn head(&self) -> Result<Head, End> {
        loop {
            let grown = self.recording.grown.notified();
            {
                let state = self.recording.state();
                match (&state.head, state.end) {
                    (Some(head), _) => return Ok(self.own(head)),
                    (None, Some(end)) => return Err(end),
                    (None, None) => {}
                }
            }
            grown.await;
        }
    }

    /// The next piece; `None` at the end. Nothing follows an error.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BrokeOff>> {
        loop {
            let grown = self.recording.grown.notified();
            let (heard, makes_room) = {
                let mut state = self.recording.state();
                (state.hear(self.number), state.window.is_some())
            };
            if let Some(heard) = heard {
                if makes_room {
                    self.recording.heard.notify_waiters();
                }
                return heard;
            }
            grown.await;
        }
    }

    fn own(&self, head: &Head) -> Head {
        let mut head = head.clone();
        let rate_limits = std::mem::take(&mut head.rate_limits);
        if self.number == FIRST {
            head.headers.extend(rate_limits);
        }
        head
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.recording.state();
        state.listeners.remove(&self.number);
        let until = Instant::now() + self.keep;
        state.kept_until = state.kept_until.max(Some(until));
        drop(state);
        self.recording.heard.notify_waiters();
    }
}
