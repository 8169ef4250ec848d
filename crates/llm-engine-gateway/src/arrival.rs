use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::HeaderName;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use llm_engine_limit::{Fingerprint, User};

use crate::TraceHeaders;

/// The routes on which requests for models arrive, as policies name them.
pub const ROUTES: &[&str] = &[
    "/v1/llm/completions-sync",
    "/v1/llm/completions-stream",
    "/v1/chat/completions",
    "/v1/completions",
    "/v2/chat/completions",
    "/v2/completions",
    "/v1/embeddings",
];

/// The header with the milliseconds after which its sender gives up: our clients send it with each attempt, and so do we to deployments.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// What is known of a request besides what it asks for.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    /// Its name in answers and logs.
    pub request_id: &'a str,
    /// One of [`ROUTES`].
    pub route: &'static str,
    /// Where it comes from.
    pub address: IpAddr,
    /// For whom the caller says that it asks.
    pub user: Option<&'a str>,
    /// By what it is recognised when it comes again.
    pub fingerprint: Fingerprint,
    /// How long the caller is willing to wait in the server instead of being refused.
    pub wait: Duration,
    /// When its caller gives up.
    pub deadline: Option<Instant>,
    /// How large it is.
    pub bytes: usize,
    /// The trace that it belongs to, if its caller names one.
    pub trace: Option<Box<TraceHeaders>>,
}

impl<'a> Arrival<'a> {
    /// A request of which nothing else is known, from this machine. It keeps its name when it comes again.
    #[must_use]
    pub fn local(request_id: &'a str, route: &'static str) -> Self {
        let digest = Sha256::digest(request_id.as_bytes());
        Self {
            request_id,
            route,
            address: Ipv4Addr::LOCALHOST.into(),
            user: None,
            fingerprint: Fingerprint {
                digest: u64::from_be_bytes(bytes(&digest, 0)),
                is_unique: true,
            },
            wait: Duration::ZERO,
            deadline: None,
            bytes: 0,
            trace: None,
        }
    }

    pub(crate) fn route_number(&self) -> u32 {
        route_number(self.route).unwrap_or(u32::MAX)
    }
}

pub(crate) fn route_number(route: &str) -> Option<u32> {
    u32::try_from(ROUTES.iter().position(|known| *known == route)?).ok()
}

/// An address as the limiter counts it: IPv6 by the network of 64 bits, which is what one household or one host has.
pub(crate) fn address_number(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

/// A user as the limiter knows it.
pub(crate) fn user_number(name: &str) -> User {
    let digest = Sha256::digest(name.as_bytes());
    User([0, 1, 2].map(|index| u32::from_be_bytes(bytes(&digest, index))))
}

/// So many bytes after so many times as many.
fn bytes<const N: usize>(digest: &[u8], index: usize) -> [u8; N] {
    let bytes = digest[N * index..N * (index + 1)].try_into();
    bytes.expect("it is as long")
}
