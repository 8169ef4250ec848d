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
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::cores::{Cores, OnCore};
use crate::{App, routes};

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
const AFTER_ERROR: Duration = Duration::from_secs(1);

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
    let connections = Connections {
        router: routes::router(app),
        close: CancellationToken::new(),
        open: TaskTracker::new(),
    };
    let drain = async {
        shutdown.await;
        tracing::info!("draining: new requests are refused");
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
        never = connections.accept(listener, cores) => match never {},
    };
    connections.close.cancel();
    connections.open.close();
    let _ = timeout(FLUSH, connections.open.wait()).await;
    gateway.stop().await;
    tracing::info!(?drained, "stopped");
    drained
}

/// What all connections have in common.
#[derive(Clone)]
struct Connections {
    router: Router,
    /// Each ends after the answer that it is giving.
    close: CancellationToken,
    open: TaskTracker,
}

impl Connections {
    /// Hands each connection to a core.
    async fn accept(&self, listener: TcpListener, cores: &Cores) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (core, place) = cores.least_busy();
                    // It leaves this runtime; another one that can't take it has no descriptors left, and it is closed.
                    let Ok(stream) = stream.into_std() else { continue };
                    self.open.spawn_on(self.clone().serve(stream, peer, place), core);
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn serve(self, stream: std::net::TcpStream, peer: SocketAddr, _place: OnCore) {
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        // Events are small and must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let answers = service_fn(|request| answer(&self.router, request, peer));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answers);
        let mut connection = pin!(connection);
        tokio::select! {
            // An error is the end of the connection, and nobody is left to be told.
            _ = &mut connection => return,
            () = self.close.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(
    router: &Router,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.clone().call(request).await
}

/// Whether it is the connection's own error and the next one can be accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
