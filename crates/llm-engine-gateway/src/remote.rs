use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::Scheme;
use http::{Uri, request};
use http_body_util::Full;
use hyper_util::client::legacy::ResponseFuture;
use llm_engine_wire::openai::Kind;

use crate::clients::Clients;
use crate::connect::{Connector, Proxies};
use crate::cooldown::Cooldown;
use crate::{RemoteSetup, SetupError};

/// An OpenAI-compatible server, with the connections to it.
pub(crate) struct Remote {
    /// The URL up to and including `/v1`, without a slash at the end.
    base: String,
    /// What is below it, in the order of [`PATHS`].
    uris: [Uri; PATHS.len()],
    authorization: Option<HeaderValue>,
    proxy_authorization: Option<HeaderValue>,
    clients: Clients<Connector>,
    pub(crate) cooldown: Cooldown,
}

/// All that is asked of such a server: completions, and which models it has.
const PATHS: [&str; 4] = [
    Kind::Chat.path(),
    Kind::Completion.path(),
    Kind::Embedding.path(),
    MODELS,
];
pub(crate) const MODELS: &str = "/models";

impl Remote {
    pub(crate) fn new(
        public_name: &str,
        setup: &RemoteSetup,
        proxies: &Arc<Proxies>,
    ) -> Result<Self, SetupError> {
        let base = setup.url.trim_end_matches('/').to_owned();
        let url = parse(&base).ok_or_else(|| SetupError::Url {
            model: public_name.to_owned(),
            // What stands before an @ is a password.
            url: base.rsplit('@').next().unwrap_or_default().to_owned(),
        })?;
        let below = |path| {
            let uri = format!("{base}{path}").parse();
            uri.expect("what is below a URL is one")
        };
        let authorization = setup.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let authorization = authorization.transpose();
        let authorization =
            authorization.map_err(|_: http::header::InvalidHeaderValue| SetupError::ApiKey {
                model: public_name.to_owned(),
            })?;
        let connector = Connector::new(
            setup.timeouts.connect,
            &setup.certificate_authorities,
            Arc::clone(proxies),
        );
        let connector = connector.map_err(|error| SetupError::Tls {
            model: public_name.to_owned(),
            error,
        })?;
        Ok(Self {
            uris: PATHS.map(below),
            base,
            authorization,
            proxy_authorization: proxies.authorization(&url),
            clients: Clients::new(connector),
            cooldown: Cooldown::default(),
        })
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> Option<(String, u16)> {
        let url = parse(&self.base)?;
        let usual = if url.scheme() == Some(&Scheme::HTTPS) {
            443
        } else {
            80
        };
        let host = url.host()?.trim_matches(['[', ']']);
        Some((host.to_owned(), url.port_u16().unwrap_or(usual)))
    }

    /// Sends a request to one of [`PATHS`].
    pub(crate) fn send(
        &self,
        mut request: request::Builder,
        path: &str,
        body: Bytes,
    ) -> Result<ResponseFuture, http::Error> {
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(value) = &self.proxy_authorization {
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let place = PATHS.iter().position(|known| *known == path);
        let uri = &self.uris[place.expect("nothing else is asked")];
        let request = request.uri(uri.clone()).body(Full::new(body))?;
        Ok(self.clients.request(request))
    }
}

/// A URL that paths can be appended to, and that holds no password.
fn parse(base: &str) -> Option<Uri> {
    let url: Uri = base.parse().ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    let is_plain = url.query().is_none() && !base.contains('#') && !url.authority()?.as_str().contains('@');
    (is_http && is_plain).then_some(url)
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.base).finish()
    }
}
