use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::Scheme;
use http::{Request, Response, Uri, request};
use http_body_util::Full;
use llm_engine_wire::openai::Kind;
use llm_engine_wire::v1::CompletionRequest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::clients::{Clients, RequestError, UpstreamBody};
use crate::connect::{Connector, Proxies};
use crate::cooldown::Cooldown;
use crate::{Dialect, RemoteSetup, SetupError};

/// An OpenAI-compatible server, with the connections to it.
pub(crate) struct Remote {
    /// The URL up to and including `/v1`, without a slash at the end.
    base: String,
    pub(crate) dialect: Dialect,
    /// What is asked there, by what stands behind the URL.
    uris: Vec<(&'static str, Uri)>,
    metrics: Option<Uri>,
    authorization: Option<HeaderValue>,
    proxy_authorization: Option<HeaderValue>,
    clients: Clients<Connector>,
    pub(crate) cooldown: Cooldown,
}

/// All that is asked of a server: completions, and which models it has.
fn paths(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::OpenAi => &OPENAI,
        Dialect::LlmEngine => &LLM_ENGINE,
    }
}

const OPENAI: [&str; 4] = [
    Kind::Chat.path(),
    Kind::Completion.path(),
    Kind::Embedding.path(),
    MODELS,
];
const LLM_ENGINE: [&str; 3] = [
    CompletionRequest::path(false),
    CompletionRequest::path(true),
    MODEL_ENDPOINTS,
];
const MODELS: &str = "/models";
const MODEL_ENDPOINTS: &str = "/llm/model-endpoints";

impl Remote {
    pub(crate) fn new(
        public_name: &str,
        setup: &RemoteSetup,
        proxies: &Arc<Proxies>,
    ) -> Result<Self, SetupError> {
        let base = setup.url.trim_end_matches('/').to_owned();
        let wrong = |url: &str| SetupError::Url {
            model: public_name.to_owned(),
            // What stands before an @ is a password.
            url: url.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        let url = parse(&base).ok_or_else(|| wrong(&base))?;
        let metrics = setup.metrics_url.as_ref();
        let metrics = metrics
            .map(|url| parse(url).ok_or_else(|| wrong(url)))
            .transpose()?;
        let query = match setup.dialect {
            Dialect::OpenAi => String::new(),
            Dialect::LlmEngine => {
                let model = utf8_percent_encode(&setup.model, NON_ALPHANUMERIC);
                format!("?model_endpoint_name={model}")
            }
        };
        let below = |path: &&'static str| {
            let uri = format!("{base}{path}{query}").parse();
            (*path, uri.expect("what is below a URL is one"))
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
            dialect: setup.dialect,
            uris: paths(setup.dialect).iter().map(below).collect(),
            metrics,
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

    /// By asking which it can be seen whether it answers.
    pub(crate) fn health_path(&self) -> &'static str {
        match self.dialect {
            Dialect::OpenAi => MODELS,
            Dialect::LlmEngine => MODEL_ENDPOINTS,
        }
    }

    pub(crate) fn has_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// Asks it for its metrics, if it is known where they are.
    pub(crate) async fn ask_for_metrics(&self) -> Option<Response<UpstreamBody>> {
        let request = Request::get(self.metrics.clone()?).body(Full::default()).ok()?;
        self.clients.request(request).await.ok()
    }

    /// Sends a request to one of [`paths`].
    pub(crate) async fn send(
        &self,
        mut request: request::Builder,
        path: &str,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, RequestError> {
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(value) = &self.proxy_authorization {
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let known = self.uris.iter().find(|(known, _)| *known == path);
        let (_, uri) = known.expect("nothing else is asked");
        let request = request.uri(uri.clone()).body(Full::new(body))?;
        self.clients.request(request).await
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
