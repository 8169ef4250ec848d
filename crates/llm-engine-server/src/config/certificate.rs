use std::fmt::Display;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Source};
use crate::TlsSetup;

/// `tls` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
}

/// The certificate of the listener.
pub(super) fn check(tls: Spanned<RawTls>, source: &Source<'_>) -> Result<TlsSetup, ConfigError> {
    let span = tls.span();
    let RawTls { certificate, key } = tls.into_inner();
    let certificates = certificates(&certificate, source)?;
    let (key_file, text) = read(&key, source)?;
    let private = PrivateKeyDer::from_pem_slice(&text);
    let private = private.map_err(|error| unusable("key", &key_file, &key, source, &error))?;
    let certificate_file = source.folder().join(certificate.get_ref());
    TlsSetup::new((certificate_file, certificates), (key_file, private)).map_err(|error| {
        source.error(
            span,
            format!("the certificate and the key of tls can't be used: {error}"),
        )
    })
}

/// The certificates of a PEM file, of which there has to be one.
pub(super) fn certificates(
    path: &Spanned<PathBuf>,
    source: &Source<'_>,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let (file, text) = read(path, source)?;
    let wrong = |reason: &dyn Display| unusable("certificate", &file, path, source, reason);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(wrong(
            &"there is none in it; a PEM file has a line BEGIN CERTIFICATE",
        ));
    }
    Ok(certificates)
}

fn read(path: &Spanned<PathBuf>, source: &Source<'_>) -> Result<(PathBuf, Vec<u8>), ConfigError> {
    let file = source.folder().join(path.get_ref());
    match std::fs::read(&file) {
        Ok(text) => Ok((file, text)),
        Err(error) => Err(unusable("file", &file, path, source, &error)),
    }
}

fn unusable(
    what: &str,
    file: &Path,
    path: &Spanned<PathBuf>,
    source: &Source<'_>,
    reason: &dyn Display,
) -> ConfigError {
    let message = format!("the {what} {} can't be used: {reason}", file.display());
    source.error(path.span(), message)
}
