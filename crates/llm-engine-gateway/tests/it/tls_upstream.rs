use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server over TLS that answers every request with one token.
pub(crate) struct TlsUpstream {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    versions: Mutex<Vec<Version>>,
}

const EVENTS: &str = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// The certificate that it has, as one to trust.
pub(crate) fn authority() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(scripted_upstream::CERTIFICATE.as_bytes()).unwrap()
}

impl TlsUpstream {
    /// One that offers these protocols.
    pub(crate) async fn start(protocols: &[&str]) -> Self {
        let key = PrivateKeyDer::from_pem_slice(scripted_upstream::KEY.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![authority()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let answers = service_fn(move |request| answer(Arc::clone(&seen), request));
                    let stream = TokioIo::new(stream);
                    let _ = if is_http2 {
                        http2::Builder::new(TokioExecutor::new())
                            .serve_connection(stream, answers)
                            .await
                    } else {
                        http1::Builder::new().serve_connection(stream, answers).await
                    };
                });
            }
        });
        Self { port, seen }
    }

    /// Its URL under one of the names that it has.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/v1", self.port)
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// In which version each request came.
    pub(crate) fn versions(&self) -> Vec<Version> {
        self.seen.versions.lock().clone()
    }
}

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    seen.versions.lock().push(request.version());
    let mut response = Response::new(Full::from(EVENTS));
    let kind = "text/event-stream".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}
