use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What the listener proves who it is with. It can be replaced while connections are accepted.
#[derive(Debug, Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

/// A certificate that has been read, with its key.
#[derive(Debug, Clone)]
pub struct TlsSetup {
    /// The file that the certificate is from, and those that vouch for it.
    pub certificate: PathBuf,
    /// The file that its key is from.
    pub key: PathBuf,
    config: Arc<ServerConfig>,
}

impl TlsSetup {
    /// # Errors
    /// What is wrong with the certificate or its key, or that they don't belong together.
    pub(crate) fn new(
        (certificate, certificates): (PathBuf, Vec<CertificateDer<'static>>),
        (key, private): (PathBuf, PrivateKeyDer<'static>),
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config
            .with_no_client_auth()
            .with_single_cert(certificates, private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            certificate,
            key,
            config: Arc::new(config),
        })
    }
}

impl Tls {
    /// With this certificate at first.
    #[must_use]
    pub fn new(setup: TlsSetup) -> Self {
        Self(Arc::new(RwLock::new(setup.config)))
    }

    /// New connections get this certificate.
    pub(crate) fn replace(&self, setup: TlsSetup) {
        *self.0.write() = setup.config;
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read()))
    }
}
