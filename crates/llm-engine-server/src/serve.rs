use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::connections::{Answering, Connection, Connections, Place, Watched};
use crate::cores::{Cores, OnCore};
use crate::error_answer::uri_too_long;
use crate::{App, Tls, routes};

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request that was running has ended.
    Fully,
    /// Some were cut off when the time for draining was over.
    CutOff,
}

/// How long requests that are running may go on after the signal to end.
const DRAIN: Duration = Duration::from_secs(30);
/// How long settling and the last bytes may take after that.
const FLUSH: Duration = Duration::from_secs(2);
/// What to wait if no connection can be accepted, most likely because there are no file descriptors left.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// The most header fields of a request.
const MAX_HEADERS: usize = 100;
/// As much of a request's head as is always read, in bytes. What comes at once with the last of it may make it twice as much.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The longest path with its query, in bytes.
const MAX_URI_BYTES: usize = 8 * 1024;

/// Answers requests on the listener until `shutdown` completes, each connection on one of the cores. Then new requests are
/// refused with 503 while those that are running go on, for up to 30 s; what still runs then ends with an error. At last the
/// listener is closed and the model workers are ended.
pub async fn serve(
    listener: TcpListener,
    app: App,
    cores: &Cores,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Drained {
    let gateway = Arc::clone(&app.gateway);
    let batches = app.batches.clone();
    let server = Server {
        connections: Arc::new(Connections::new(app.listening.connections)),
        tls: app.listening.tls.clone(),
        router: routes::router(app),
        close: CancellationToken::new(),
        open: TaskTracker::new(),
    };
    let drain = async {
        shutdown.await;
        tracing::info!("draining: new requests are refused");
        // Rows that are on their way are drained like requests; the others are for the next start.
        if let Some(batches) = &batches {
            batches.drain();
        }
        gateway.drain();
        if timeout(DRAIN, gateway.drained()).await.is_ok() {
            return Drained::Fully;
        }
        gateway.cut_off();
        let _ = timeout(FLUSH, gateway.drained()).await;
        Drained::CutOff
    };
    let drained = tokio::select! {
        drained = drain => drained,
        never = server.accept(listener, cores) => match never {},
        never = server.connections.watch() => match never {},
    };
    if let Some(batches) = &batches {
        let _ = timeout(FLUSH, batches.drained()).await;
    }
    server.close.cancel();
    server.open.close();
    let _ = timeout(FLUSH, server.open.wait()).await;
    gateway.stop().await;
    tracing::info!(?drained, "stopped");
    drained
}

/// What all connections have in common.
#[derive(Clone)]
struct Server {
    router: Router,
    tls: Option<Tls>,
    connections: Arc<Connections>,
    /// Each ends after the answer that it is giving.
    close: CancellationToken,
    open: TaskTracker,
}

impl Server {
    /// Hands each connection to a core.
    async fn accept(&self, listener: TcpListener, cores: &Cores) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Without a place it is closed, which its client can make more of than of waiting.
                    let Some(place) = self.connections.enter() else {
                        continue;
                    };
                    let (core, on_core) = cores.least_busy();
                    // It leaves this runtime; another one that can't take it has no descriptors left, and it is closed.
                    let Ok(stream) = stream.into_std() else { continue };
                    let connection = Arc::clone(&place.connection);
                    let serving = self.clone().serve(stream, peer, (place, on_core));
                    let task = self.open.spawn_on(serving, core);
                    connection.runs_as(task.abort_handle());
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn serve(self, stream: std::net::TcpStream, peer: SocketAddr, (place, _on_core): (Place, OnCore)) {
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        // Events are small and must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        if self.tls.is_some() {
            place.connection.begins();
        }
        // Who says nothing has neither buffers nor the room that answering takes.
        let has_spoken = tokio::select! {
            readable = stream.readable() => readable.is_ok(),
            () = self.close.cancelled() => false,
        };
        if has_spoken {
            Box::pin(self.answer(stream, peer, &place.connection)).await;
        }
    }

    async fn answer(&self, stream: TcpStream, peer: SocketAddr, connection: &Arc<Connection>) {
        match &self.tls {
            None => self.answer_on(stream, peer, connection).await,
            Some(tls) => {
                // Who can't speak TLS is left without an answer, as it is usual.
                if let Ok(stream) = tls.acceptor().accept(stream).await {
                    Box::pin(self.answer_on(stream, peer, connection)).await;
                }
            }
        }
    }

    async fn answer_on<S>(&self, stream: S, peer: SocketAddr, connection: &Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(connection)));
        let answers = service_fn(|request| answer(&self.router, request, peer, connection));
        let mut http = http1::Builder::new();
        http.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD_BYTES);
        let mut serving = pin!(http.serve_connection(stream, answers));
        tokio::select! {
            // An error is the end of the connection, and nobody is left to be told.
            _ = &mut serving => return,
            () = self.close.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    }
}

async fn answer(
    router: &Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    connection: &Arc<Connection>,
) -> Result<Response<Answering>, Infallible> {
    let busy = connection.busy();
    let uri = request.uri().path_and_query();
    let answer = if uri.is_some_and(|uri| uri.as_str().len() > MAX_URI_BYTES) {
        uri_too_long(MAX_URI_BYTES)
    } else {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request).await?
    };
    Ok(answer.map(|body| Answering { body, _busy: busy }))
}

/// Whether it is the connection's own error and the next one can be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
