//! What carries requests: connections that are used again, HTTP/1.1 and 2, TLS, proxies.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use reqwest::Url;
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::BuildError;

/// The URL of a server, to which paths are added.
#[derive(Debug, Clone)]
pub(crate) struct Base(Url);

/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

impl Base {
    pub(crate) fn parse(text: &str) -> Result<Self, BuildError> {
        let wrong = |reason: &str| BuildError::Url {
            url: without_credentials(text),
            reason: reason.to_owned(),
        };
        let url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("an API key does not belong there"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must end with the path"));
        }
        Ok(Self(url))
    }

    /// The URL of a path, which begins with `/`.
    pub(crate) fn join(&self, path: &str, query: &[(String, String)]) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Without a slash at the end.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

fn without_credentials(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    }
}

pub(crate) fn build(
    user_agent: HeaderValue,
    connect_timeout: Duration,
    root_certificates: &[Vec<u8>],
) -> Result<reqwest::Client, BuildError> {
    let client = reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        // A redirect of a POST would lose its body, or take the key to somewhere else.
        .redirect(Policy::none())
        // Attempts are counted, all of them.
        .retry(reqwest::retry::never())
        .tls_backend_preconfigured(tls(root_certificates)?);
    client
        .build()
        .map_err(|error| BuildError::Transport(causes(&error)))
}

fn tls(root_certificates: &[Vec<u8>]) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let mistake = |error: &dyn std::error::Error| BuildError::RootCertificates(error.to_string());
    for pem in root_certificates {
        let mut is_empty = true;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| mistake(&error))?;
            roots.add(certificate).map_err(|error| mistake(&error))?;
            is_empty = false;
        }
        if is_empty {
            return Err(BuildError::RootCertificates("no certificate is in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| BuildError::Transport(error.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// An error with what it was caused by, each once: "error sending request: connection refused".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_added_to_the_base() {
        for base in ["http://h:1", "http://h:1/"] {
            assert_eq!(
                Base::parse(base).unwrap().join("/v1/models", &[]).as_str(),
                "http://h:1/v1/models"
            );
        }
        let query = [("name".to_owned(), "a b&c".to_owned())];
        let base = Base::parse("https://h/llm/").unwrap();
        assert_eq!(base.join("/x", &query).as_str(), "https://h/llm/x?name=a+b%26c");
        assert_eq!(base.as_str(), "https://h/llm");
    }

    #[test]
    fn a_bad_base_says_why() {
        for (url, why) in [
            ("127.0.0.1:5000", "relative URL"),
            ("localhost:5000", "begin with http"),
            ("ftp://h", "begin with http"),
            ("http://", "empty host"),
            ("http://key@h", "API key"),
            ("http://h?x=1", "end with the path"),
        ] {
            let error = Base::parse(url).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("key@"), "{error}");
        }
    }
}
