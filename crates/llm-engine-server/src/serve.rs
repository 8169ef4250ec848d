use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

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

/// Answers requests on the listener until `shutdown` completes. Then new requests are refused with 503 while those that
/// are running go on, for up to 30 s; what still runs then ends with an error. At last the listener is closed and the
/// model workers are ended.
///
/// # Errors
/// What the listener reports.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Drained> {
    let close = CancellationToken::new();
    // Events are small and must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let gateway = Arc::clone(&app.gateway);
    let service = routes::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(close.clone().cancelled_owned());
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        () = shutdown => {}
        // Only an error ends it before it is told to.
        ended = &mut server => return ended.map_err(io::Error::other)?.map(|()| Drained::Fully),
    }
    tracing::info!("draining: new requests are refused");
    gateway.drain();
    let drained = match timeout(DRAIN, gateway.drained()).await {
        Ok(()) => Drained::Fully,
        Err(_) => {
            gateway.cut_off();
            let _ = timeout(FLUSH, gateway.drained()).await;
            Drained::CutOff
        }
    };
    close.cancel();
    if timeout(FLUSH, &mut server).await.is_err() {
        server.abort();
    }
    gateway.stop().await;
    tracing::info!(?drained, "stopped");
    Ok(drained)
}
