use std::fmt::Display;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Mistake, Source};
use super::spanned::Spanned;
use crate::TlsSetup;

/// By which the listener proves who it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tls")]
pub(super) struct RawTls {
    /// The file with its certificate, and those that lead to an authority.
    certificate: Spanned<PathBuf>,
    /// The file with its private key.
    key: Spanned<PathBuf>,
}

/// The certificate of the listener.
pub(super) fn check(tls: Spanned<RawTls>, source: &Source<'_>) -> Result<TlsSetup, Mistake> {
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
) -> Result<Vec<CertificateDer<'static>>, Mistake> {
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

fn read(path: &Spanned<PathBuf>, source: &Source<'_>) -> Result<(PathBuf, Vec<u8>), Mistake> {
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
) -> Mistake {
    let message = format!("the {what} {} can't be used: {reason}", file.display());
    source.error(path.span(), message)
}
