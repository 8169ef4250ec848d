use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use toml::Spanned;

use super::error::{ConfigError, Source};

/// The certificates of a PEM file, of which there has to be one.
pub(super) fn certificates(
    path: &Spanned<PathBuf>,
    source: &Source<'_>,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let file = source.folder().join(path.get_ref());
    let wrong = |reason: &dyn std::fmt::Display| {
        let message = format!("the certificates in {} can't be used: {reason}", file.display());
        source.error(path.span(), message)
    };
    let text = std::fs::read(&file).map_err(|error| wrong(&error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(wrong(&"there is none (a PEM file has lines BEGIN CERTIFICATE)"));
    }
    Ok(certificates)
}
