//! Requests to servers. Over HTTP/1 a request drives its connection itself: in a task of its own, as clients usually keep them, each
//! piece of an answer would be handed from one task to another, which costs more than all that is done with it.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use thread_local::ThreadLocal;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tower_service::Service;

/// The connections to servers that are made by one connector. Each thread keeps some for itself: a request that used another
/// thread's would wake that one up for each of its steps.
pub(crate) struct Clients<C> {
    connector: C,
    of_threads: ThreadLocal<Arc<Mutex<Pool>>>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Nobody has seen the request.
    #[error("no connection")]
    Connect(#[source] BoxError),
    #[error("no answer")]
    Http(#[source] hyper::Error),
    #[error("no request")]
    Invalid(#[from] http::Error),
}

/// The body of an answer, which keeps its connection busy until it is dropped.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    /// `None` only while it is dropped.
    incoming: Option<Incoming>,
    /// `None` over HTTP/2, where others use it at the same time.
    connection: Option<Http1>,
    pool: Arc<Mutex<Pool>>,
}

type BoxError = Box<dyn Error + Send + Sync>;
type Sent = Request<Full<Bytes>>;

/// Connections that can be used.
#[derive(Debug, Default)]
struct Pool {
    /// Those that nobody uses, the latest last.
    http1: Vec<Http1>,
    http2: Vec<Http2>,
}

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server(Option<Scheme>, Option<Authority>);

struct Http1 {
    server: Server,
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    host: HeaderValue,
    /// The server is reached through a proxy, which wants to know whom a request is for.
    is_proxied: bool,
    idle_since: Instant,
}

/// What reads and writes.
struct Driver {
    /// `None` once the connection is closed.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    wakes: Arc<Wakes>,
    /// By which these are told, kept because it is needed for each piece.
    waker: Waker,
}

/// Wakes the task that polls a connection; but not for what the connection and who waits for it tell each other while they are
/// polled together.
#[derive(Debug, Default)]
struct Wakes {
    task: AtomicWaker,
    is_polled: AtomicBool,
    again: AtomicBool,
}

#[derive(Debug)]
struct Http2 {
    server: Server,
    sender: http2::SendRequest<Full<Bytes>>,
    used: Instant,
}

enum Line {
    Http1(Http1),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection that is not used for so long is closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// How often it is looked for such. It is also what a thread's clock is set to when nothing else is awaited there: a time-out of a
/// request that came before would have to set it anew, for a call of the system.
const LOOK: Duration = Duration::from_secs(5);
/// Over HTTP/2 the other side is asked after such a pause whether it is still there, and given so long to answer.
const HTTP2_PING: Duration = Duration::from_secs(30);

impl<C> Clients<C>
where
    C: Service<Uri, Error: Into<BoxError>> + Clone,
    C::Response: Connection + Read + Write + Unpin + Send + 'static,
{
    pub(crate) fn new(connector: C) -> Self {
        Self {
            connector,
            of_threads: ThreadLocal::new(),
        }
    }

    /// Sends a request by a connection of this thread, and returns when the head of its answer is there. If this is dropped, or
    /// the body before its end, the server sees the connection closed.
    pub(crate) fn request(
        &self,
        request: Sent,
    ) -> Pin<Box<impl Future<Output = Result<Response<UpstreamBody>, RequestError>>>> {
        // It is handed on several times before it is polled, and so are the futures that it is in.
        Box::pin(self.exchange(request))
    }

    async fn exchange(&self, mut request: Sent) -> Result<Response<UpstreamBody>, RequestError> {
        let uri = request.uri().clone();
        let server = Server(uri.scheme().cloned(), uri.authority().cloned());
        let pool = self.of_threads.get_or(Pool::start);
        loop {
            let kept = pool.lock().take(&server);
            let is_kept = kept.is_some();
            let line = match kept {
                Some(line) => line,
                // Seldom, and large.
                None => Box::pin(self.connect(&uri, &server, pool)).await?,
            };
            *request.uri_mut() = uri.clone();
            let mut error = match line {
                Line::Http1(connection) => match connection.send(request).await {
                    Ok((answer, connection)) => return Ok(body_with(answer, Some(connection), pool)),
                    Err(error) => error,
                },
                Line::Http2(mut sender) => match sender.try_send_request(request).await {
                    Ok(answer) => return Ok(body_with(answer, None, pool)),
                    Err(error) => error,
                },
            };
            // A connection may be closed while nobody uses it. What was not sent is sent by another one; but who closes a new one
            // does not want to be asked.
            request = match error.take_message().filter(|_| is_kept) {
                Some(request) => request,
                None => return Err(RequestError::Http(error.into_error())),
            };
        }
    }

    async fn connect(&self, uri: &Uri, server: &Server, pool: &Mutex<Pool>) -> Result<Line, RequestError> {
        let mut connector = self.connector.clone();
        let refused = |error: C::Error| RequestError::Connect(error.into());
        poll_fn(|context| connector.poll_ready(context))
            .await
            .map_err(refused)?;
        let stream = connector.call(uri.clone()).await.map_err(refused)?;
        let connected = stream.connected();
        if connected.is_negotiated_h2() {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .keep_alive_interval(HTTP2_PING)
                .keep_alive_timeout(HTTP2_PING);
            let (sender, connection) = http.handshake(stream).await.map_err(RequestError::Http)?;
            tokio::spawn(connection);
            pool.lock().http2.push(Http2 {
                server: server.clone(),
                sender: sender.clone(),
                used: Instant::now(),
            });
            return Ok(Line::Http2(sender));
        }
        let (sender, connection) = http1::handshake(stream).await.map_err(RequestError::Http)?;
        Ok(Line::Http1(Http1 {
            server: server.clone(),
            sender,
            driver: Driver::new(connection),
            host: host(uri),
            is_proxied: connected.is_proxied(),
            idle_since: Instant::now(),
        }))
    }
}

fn body_with(
    answer: Response<Incoming>,
    connection: Option<Http1>,
    pool: &Arc<Mutex<Pool>>,
) -> Response<UpstreamBody> {
    answer.map(|incoming| UpstreamBody {
        incoming: Some(incoming),
        connection,
        pool: Arc::clone(pool),
    })
}

impl Pool {
    /// A pool that closes what is not used, as long as there is one.
    fn start() -> Arc<Mutex<Self>> {
        let pool = Arc::<Mutex<Self>>::default();
        let closing = Arc::downgrade(&pool);
        tokio::spawn(async move {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(pool) = closing.upgrade() else { return };
                pool.lock().close_idle();
            }
        });
        pool
    }

    /// A connection to this server, if there is one.
    fn take(&mut self, server: &Server) -> Option<Line> {
        self.http2.retain(|connection| !connection.sender.is_closed());
        let mut http2 = self.http2.iter_mut();
        if let Some(connection) = http2.find(|connection| connection.server == *server) {
            connection.used = Instant::now();
            return Some(Line::Http2(connection.sender.clone()));
        }
        while let Some(place) = self
            .http1
            .iter()
            .rposition(|connection| connection.server == *server)
        {
            let mut connection = self.http1.remove(place);
            let is_fresh = connection.idle_since.elapsed() < IDLE_CONNECTION;
            if is_fresh && connection.is_usable() {
                return Some(Line::Http1(connection));
            }
        }
        None
    }

    fn close_idle(&mut self) {
        self.http1
            .retain(|connection| connection.idle_since.elapsed() < IDLE_CONNECTION);
        self.http2
            .retain(|connection| connection.used.elapsed() < IDLE_CONNECTION);
    }
}

impl Http1 {
    /// Sends a request and waits for the head of its answer.
    async fn send(mut self, mut request: Sent) -> Result<(Response<Incoming>, Self), TrySendError<Sent>> {
        request
            .headers_mut()
            .entry(HOST)
            .or_insert_with(|| self.host.clone());
        if !self.is_proxied {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
        }
        let answer = {
            let mut answer = pin!(self.sender.try_send_request(request));
            let driver = &mut self.driver;
            poll_fn(|context| driver.poll(context, |context| answer.as_mut().poll(context))).await?
        };
        Ok((answer, self))
    }

    /// Whether another request can be sent.
    fn is_usable(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let is_open = self
            .driver
            .poll(&mut context, |_| Poll::<()>::Pending)
            .is_pending();
        is_open && self.driver.connection.is_some() && self.sender.is_ready()
    }
}

impl Driver {
    fn new(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        let wakes = Arc::<Wakes>::default();
        Self {
            connection: Some(Box::pin(connection)),
            waker: Arc::clone(&wakes).into(),
            wakes,
        }
    }

    /// Reads and writes what can be, until what is waited for is there or nothing more can be done.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut waiting: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.wakes.task.register(context.waker());
        self.wakes.is_polled.store(true, SeqCst);
        let mut own = Context::from_waker(&self.waker);
        let waited = loop {
            self.wakes.again.store(false, SeqCst);
            // An error is told to who waits.
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(&mut own).is_ready()
            {
                self.connection = None;
            }
            let waited = waiting(&mut own);
            if waited.is_ready() || !self.wakes.again.load(SeqCst) {
                break waited;
            }
        };
        self.wakes.is_polled.store(false, SeqCst);
        // Somebody else may have woken it up since.
        if waited.is_pending() && self.wakes.again.load(SeqCst) {
            context.waker().wake_by_ref();
        }
        waited
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: who ends to poll looks at the second after it has set the first.
        self.again.store(true, SeqCst);
        if !self.is_polled.load(SeqCst) {
            self.task.wake();
        }
    }
}

/// What `Host` is for a server (RFC 9110, 7.2).
fn host(uri: &Uri) -> HeaderValue {
    let host = uri.host().unwrap_or_default();
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let usual = if is_https { 443 } else { 80 };
    let host = match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
        None => HeaderValue::from_str(host),
    };
    host.unwrap_or(HeaderValue::from_static(""))
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        match &mut this.connection {
            None => Pin::new(incoming).poll_frame(context),
            Some(connection) => connection
                .driver
                .poll(context, |context| Pin::new(&mut *incoming).poll_frame(context)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for UpstreamBody {
    /// A connection by which all has come is used again; another one is closed.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // Dropped, it lets the connection see whether nothing but the end of the answer is left.
        self.incoming = None;
        if connection.is_usable() {
            connection.idle_since = Instant::now();
            self.pool.lock().http1.push(connection);
        }
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http1").field(&self.server).finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for Clients<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper_util::rt::TokioIo;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Makes one connection, which has been closed when it is handed over.
    #[derive(Clone)]
    struct Hangup(Arc<AtomicBool>);

    impl Service<Uri> for Hangup {
        type Response = TokioIo<TcpStream>;
        type Error = std::io::Error;
        type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            assert!(!self.0.swap(true, SeqCst), "the server is asked again");
            Box::pin(async {
                let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
                let stream = TcpStream::connect(listener.local_addr()?).await?;
                drop(listener.accept().await?);
                stream.readable().await?;
                Ok(TokioIo::new(stream))
            })
        }
    }

    #[tokio::test]
    async fn who_closes_a_new_connection_is_not_asked_again() {
        let clients = Clients::new(Hangup(Arc::default()));
        let mut request = Sent::default();
        *request.uri_mut() = Uri::from_static("http://server.test/");
        let error = clients.request(request).await.unwrap_err();
        assert!(matches!(error, RequestError::Http(_)), "{error:?}");
    }
}
