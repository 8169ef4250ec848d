use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llm_engine_gateway::{Caller, Gateway};

/// Why a request has no caller. The words are those of the public servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    /// No header, or a scheme that is neither Basic nor Bearer. An `x-api-key` alone is not enough.
    #[error("No authentication was passed in")]
    Missing,
    /// A Basic header that can't be read.
    #[error("Not authenticated")]
    Unreadable,
    /// A key that nobody has.
    #[error("Could not authenticate user")]
    UnknownKey(Scheme),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer,
}

impl Unauthorized {
    /// The scheme that the answer asks for.
    pub(crate) fn challenge(self) -> &'static str {
        match self {
            Self::Unreadable | Self::UnknownKey(Scheme::Basic) => "Basic",
            Self::Missing | Self::UnknownKey(Scheme::Bearer) => "Bearer",
        }
    }
}

/// Who sends a request: the key is the user name of HTTP Basic, or the Bearer token.
pub(crate) fn authorize(gateway: &Gateway, headers: &HeaderMap) -> Result<Caller, Unauthorized> {
    let (scheme, api_key) = credentials(headers)?;
    gateway
        .authenticate(&api_key)
        .map_err(|_| Unauthorized::UnknownKey(scheme))
}

/// The key, and how it was sent.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<(Scheme, String), Unauthorized> {
    let header = headers.get(AUTHORIZATION).ok_or(Unauthorized::Missing)?;
    let header = header.to_str().map_err(|_| Unauthorized::Missing)?;
    let (scheme, credentials) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        let name = user_name(credentials.trim()).ok_or(Unauthorized::Unreadable)?;
        Ok((Scheme::Basic, name))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Ok((Scheme::Bearer, credentials.trim().to_owned()))
    } else {
        Err(Unauthorized::Missing)
    }
}

/// The part before the first colon of the decoded credentials.
fn user_name(credentials: &str) -> Option<String> {
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (name, _password) = decoded.split_once(':')?;
    Some(name.to_owned())
}
