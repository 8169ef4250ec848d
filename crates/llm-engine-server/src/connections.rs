//! How many connections there may be, and how long each may do nothing.
//!
//! A connection is idle until the first byte of a request has come, then its head is being read, then it is busy until the
//! last byte of the answer has gone. Only busy ones have a right to their place: when all places are taken, a new connection
//! gets that of the one that has been idle longest, those first that have never asked for anything. So connections that are
//! only held open keep nobody out, however many they are.
//!
//! One task looks at all of them every second, which costs a request less than timers of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use foldhash::fast::RandomState;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How many connections there may be if nothing else is configured.
pub(crate) const MOST_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");
/// How long a connection is kept on which nothing is asked. Longer than the minute after which load balancers close theirs,
/// which would otherwise send requests into connections that are just being closed.
const IDLE: Duration = Duration::from_secs(75);
/// From the first byte of a request, or of TLS, to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// How long the other side may take nothing of what is being sent.
const STALLED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(1);

/// All connections that are open.
#[derive(Debug)]
pub(crate) struct Connections {
    most: NonZeroUsize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Arc<Connection>, RandomState>,
    next: u64,
    /// How many had to make room since it was last said in the log.
    displaced: usize,
    turned_away: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Connection {
    state: Mutex<State>,
    task: OnceLock<AbortHandle>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// When the phase began; not that of a request.
    since: Instant,
    has_asked: bool,
    /// Since when something waits to be taken.
    stalled: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Busy,
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    all: Arc<Connections>,
    pub(crate) connection: Arc<Connection>,
}

impl Connections {
    pub(crate) fn new(most: NonZeroUsize) -> Self {
        Self {
            most,
            open: Mutex::default(),
        }
    }

    /// A place for a new connection. `None` if all are taken by connections with a request.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open.lock();
        if open.connections.len() >= self.most.get() && !open.displace_one() {
            open.turned_away += 1;
            return None;
        }
        let connection = Arc::new(Connection {
            state: Mutex::new(State {
                phase: Phase::Idle,
                since: Instant::now(),
                has_asked: false,
                stalled: None,
            }),
            task: OnceLock::new(),
        });
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&connection));
        Some(Place {
            number,
            all: Arc::clone(self),
            connection,
        })
    }

    /// Ends connections that do nothing, for ever.
    pub(crate) async fn watch(&self) -> Infallible {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut open = self.open.lock();
            let now = Instant::now();
            for connection in open.connections.values() {
                if connection.state.lock().is_over(now) {
                    connection.end();
                }
            }
            let (displaced, turned_away) = (open.displaced, open.turned_away);
            (open.displaced, open.turned_away) = (0, 0);
            drop(open);
            if displaced + turned_away > 0 {
                tracing::warn!(
                    most = self.most,
                    displaced,
                    turned_away,
                    "all connections were taken: idle ones made room, and new ones for which there was none were closed"
                );
            }
        }
    }
}

impl Open {
    /// Ends the connection that is missed least; false if all have a request.
    fn displace_one(&mut self) -> bool {
        let states = self
            .connections
            .iter()
            .map(|(number, connection)| (*number, *connection.state.lock()));
        // One that still has bytes to send is not through.
        let idle = states.filter(|(_, state)| state.phase != Phase::Busy && state.stalled.is_none());
        let Some((number, _)) = idle.min_by_key(|(_, state)| (state.has_asked, state.since)) else {
            return false;
        };
        if let Some(connection) = self.connections.remove(&number) {
            connection.end();
        }
        self.displaced += 1;
        true
    }
}

impl State {
    fn is_over(&self, now: Instant) -> bool {
        let bound = match self.phase {
            Phase::Idle => Some(IDLE),
            Phase::Head => Some(HEAD),
            Phase::Busy => None,
        };
        bound.is_some_and(|bound| now.duration_since(self.since) >= bound)
            || self
                .stalled
                .is_some_and(|stalled| now.duration_since(stalled) >= STALLED)
    }
}

impl Connection {
    /// By which it can be ended. What it was doing is dropped, which settles it.
    pub(crate) fn runs_as(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    fn end(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn turn(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        if phase == Phase::Busy {
            // Which may take as long as it likes.
            state.has_asked = true;
        } else {
            state.since = Instant::now();
        }
    }

    /// The first bytes of something have come, or are about to.
    pub(crate) fn begins(&self) {
        if self.state.lock().phase == Phase::Idle {
            self.turn(Phase::Head);
        }
    }

    fn stalls(&self, stalls: bool) {
        self.state.lock().stalled = stalls.then(Instant::now);
    }

    /// A request has come whose answer is this.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.turn(Phase::Busy);
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.open.lock().connections.remove(&self.number);
    }
}

/// A connection with a request, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.turn(Phase::Idle);
    }
}

/// The body of an answer, during which the connection is busy.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) body: Body,
    pub(crate) _busy: Busy,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The bytes of a connection, by which is seen what it does.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    stalls: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            connection,
            stalls: false,
        }
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() != self.stalls {
            self.stalls = written.is_pending();
            self.connection.stalls(self.stalls);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.connection.begins();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
