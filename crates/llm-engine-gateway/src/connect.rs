//! Connections to remote servers: TCP, a proxy if one is responsible, TLS where the URL says so. All of it has one time-out.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::header::HeaderValue;
use http::uri::{Authority, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use crate::{ProxySetup, SetupError};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes the connections of one deployment.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<Dialer>,
    patience: Duration,
}

/// There is no connection yet, and the time for it is over.
#[derive(Debug, thiserror::Error)]
#[error("there was no connection within {} s", .0.as_secs_f64())]
struct NoConnection(Duration);

/// A probe that is not answered for so long finds out that the other side has gone without a word.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

impl Connector {
    /// `roots` are trusted besides the public certificate authorities.
    pub(crate) fn new(
        patience: Duration,
        roots: &[CertificateDer<'static>],
        proxies: Arc<Proxies>,
    ) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        // Of several addresses each gets its share of the time.
        tcp.set_connect_timeout(Some(patience));
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls(roots)?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Dialer { tcp, proxies });
        Ok(Self { inner, patience })
    }
}

fn tls(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let mut store = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for root in roots {
        store.add(root.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<Dialer> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let (connecting, patience) = (self.inner.call(destination), self.patience);
        Box::pin(async move {
            let connected = timeout(patience, connecting).await;
            connected.unwrap_or_else(|_| Err(NoConnection(patience).into()))
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

// === proxies ===

/// Which proxy is responsible for a server.
#[derive(Debug)]
pub(crate) struct Proxies(Matcher);

impl Proxies {
    pub(crate) fn new(setup: &ProxySetup) -> Result<Self, SetupError> {
        let ProxySetup {
            http,
            https,
            no_proxy,
        } = setup;
        for url in [http, https].into_iter().filter(|url| !url.is_empty()) {
            let probe = Matcher::builder().http(url.as_str()).build();
            let proxy = probe.intercept(&Uri::from_static("http://server.invalid"));
            if proxy.is_none_or(|proxy| !is_usable(proxy.uri())) {
                // What stands before the @ is a password.
                let (_, url) = url.rsplit_once('@').unwrap_or(("", url));
                return Err(SetupError::Proxy { url: url.to_owned() });
            }
        }
        let matcher = Matcher::builder().http(http.as_str()).https(https.as_str());
        Ok(Self(matcher.no(no_proxy.as_str()).build()))
    }

    /// This machine is never reached through a proxy.
    fn responsible(&self, destination: &Uri) -> Option<Intercept> {
        let host = destination.host()?.trim_matches(['[', ']']);
        let is_here = host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        (!is_here).then(|| self.0.intercept(destination))?
    }

    /// What the proxy of an `http` server wants to see on each request.
    pub(crate) fn authorization(&self, destination: &Uri) -> Option<HeaderValue> {
        if destination.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.responsible(destination)?.basic_auth().cloned()
    }
}

fn is_usable(proxy: &Uri) -> bool {
    let has_port =
        |authority: &Authority| authority.as_str() == authority.host() || authority.port_u16().is_some();
    proxy.scheme() == Some(&Scheme::HTTP) && proxy.authority().is_some_and(has_port)
}

/// Makes TCP connections to servers or to their proxies.
#[derive(Clone)]
pub(crate) struct Dialer {
    tcp: HttpConnector,
    proxies: Arc<Proxies>,
}

/// A TCP connection that ends at a server, or at a proxy that is told with each request where to.
pub(crate) struct Line {
    stream: TokioIo<TcpStream>,
    is_proxied: bool,
}

impl Service<Uri> for Dialer {
    type Response = Line;
    type Error = BoxError;
    type Future = Connecting<Line>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let is_tls = destination.scheme() == Some(&Scheme::HTTPS);
        let mut tcp = self.tcp.clone();
        match self.proxies.responsible(&destination) {
            None => Box::pin(async move { line(tcp.call(destination).await?, false) }),
            Some(proxy) if is_tls => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(authorization) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                Box::pin(async move { line(tunnel.call(destination).await?, false) })
            }
            Some(proxy) => Box::pin(async move { line(tcp.call(proxy.uri().clone()).await?, true) }),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends what can fail")]
fn line(stream: TokioIo<TcpStream>, is_proxied: bool) -> Result<Line, BoxError> {
    Ok(Line { stream, is_proxied })
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxied)
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(http: &str, https: &str, no_proxy: &str) -> Result<Proxies, SetupError> {
        Proxies::new(&ProxySetup {
            http: http.to_owned(),
            https: https.to_owned(),
            no_proxy: no_proxy.to_owned(),
        })
    }

    fn responsible(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.responsible(&url.parse().expect("a URL"))?;
        Some(proxy.uri().authority()?.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = proxies("http://plain:1", "secret:2", "").expect("proxies");
        assert_eq!(
            responsible(&proxies, "http://a.test/v1").as_deref(),
            Some("plain:1")
        );
        assert_eq!(
            responsible(&proxies, "https://a.test/v1").as_deref(),
            Some("secret:2")
        );
    }

    #[test]
    fn names_networks_and_this_machine_are_reached_directly() {
        let proxies = proxies("p:1", "p:1", "intern.test, .other.test,10.0.0.0/8").expect("proxies");
        for direct in [
            "intern.test",
            "a.intern.test",
            "a.other.test",
            "10.1.2.3",
            "localhost",
            "127.0.0.1",
            "[::1]",
        ] {
            assert_eq!(
                responsible(&proxies, &format!("http://{direct}:8000/v1")),
                None,
                "{direct}"
            );
        }
        for other in ["notintern.test", "11.0.0.1", "[2001:db8::1]"] {
            assert!(
                responsible(&proxies, &format!("http://{other}/v1")).is_some(),
                "{other}"
            );
        }
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_its_password() {
        for url in [
            "socks5://me:secret@p:1",
            "https://me:secret@p:1",
            "http://",
            "p:port",
            "a b",
        ] {
            let error = proxies("", url, "").expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(proxies("", "", "*").is_ok());
    }

    #[test]
    fn a_proxy_s_password_goes_to_the_proxy_alone() {
        let proxies = proxies("http://me:secret@p:1", "http://me:secret@p:1", "").expect("proxies");
        let of = |url: &'static str| proxies.authorization(&Uri::from_static(url));
        assert_eq!(of("http://a.test/v1").expect("it has one"), "Basic bWU6c2VjcmV0");
        // There it is said when the tunnel is made.
        assert_eq!(of("https://a.test/v1"), None);
        assert_eq!(of("http://127.0.0.1/v1"), None);
    }
}
