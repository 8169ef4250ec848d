use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use foldhash::quality::FixedState;
use ipnet::IpNet;
use llm_engine_gateway::{Arrival, Fingerprint, REQUEST_TIMEOUT, TraceHeaders};
use tokio::time::Instant;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// For whom the caller asks, where the body has no place for it.
const USER: HeaderName = HeaderName::from_static("x-llm-engine-user");

/// Who wants to wait longer than a booked time can be away does not wait better.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is known of a request besides what it asks for.
pub(crate) fn arrival<'a>(
    parts: &'a Parts,
    body: &[u8],
    user: Option<&'a str>,
    (route, request_id): (&'static str, &'a str),
    trusted_proxies: &[IpNet],
) -> Arrival<'a> {
    let header_user = parts.headers.get(USER).and_then(|user| user.to_str().ok());
    Arrival {
        request_id,
        route,
        address: peer_address(parts, trusted_proxies),
        user: user.or(header_user).filter(|user| !user.is_empty()),
        fingerprint: fingerprint(&parts.uri, &parts.headers, body),
        wait: preferred_wait(&parts.headers),
        deadline: deadline(&parts.headers),
        bytes: body.len(),
        trace: TraceHeaders::read(&parts.headers),
    }
}

/// Where a request comes from.
pub(crate) fn peer_address(parts: &Parts, trusted_proxies: &[IpNet]) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip());
    address(peer, &parts.headers, trusted_proxies)
}

/// Where a request comes from: the peer, or, as long as that is a trusted proxy, whom it says it has the request from.
/// The last address of the header is the nearest; what stands before the first one that is not trusted may be made up.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted_proxies.iter().any(|network| network.contains(&address))
    };
    let mut address = peer;
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let names = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    for name in names {
        if !is_trusted(address) {
            break;
        }
        // Some proxies add the port.
        let name = name.trim();
        let parsed = name
            .parse()
            .ok()
            .or_else(|| Some(name.parse::<SocketAddr>().ok()?.ip()));
        let Some(before) = parsed else { break };
        address = before;
    }
    address
}

/// By what a request is recognised when it comes again: its idempotency key, or all of it, to which the query belongs (v1
/// names the model there).
pub(crate) fn fingerprint(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Fingerprint {
    let hasher = FixedState::with_seed(0);
    match headers.get(IDEMPOTENCY_KEY) {
        Some(key) => Fingerprint {
            digest: hasher.hash_one((uri.path(), key.as_bytes())),
            is_unique: true,
        },
        None => Fingerprint {
            digest: hasher.hash_one((uri.path(), uri.query(), body)),
            is_unique: false,
        },
    }
}

/// `Prefer: wait=30` (RFC 7240): how many seconds the caller would rather wait than be refused.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Duration {
    let values = headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split([',', ';']));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse().ok())?
    });
    let seconds = waits.next().unwrap_or(0);
    Duration::from_secs(seconds).min(LONGEST_WAIT)
}

/// When the caller gives up, if it says so. What is no number says nothing.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let milliseconds = headers.get(REQUEST_TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    Instant::now().checked_add(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    fn address_of(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "::1/128"]
            .map(|net| net.parse().expect("a network"))
            .into();
        let pairs: Vec<_> = forwarded.iter().map(|value| (FORWARDED_FOR, *value)).collect();
        address(peer.parse().expect("an address"), &headers(&pairs), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(address_of("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(address_of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(address_of("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(address_of("::1", &["2001:db8::5"]), "2001:db8::5");
        assert_eq!(address_of("::ffff:10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_one() {
        assert_eq!(
            address_of("10.0.0.1", &["6.6.6.6, 203.0.113.9, 10.0.0.2"]),
            "203.0.113.9"
        );
        assert_eq!(
            address_of("10.0.0.1", &["6.6.6.6", "203.0.113.9:4711", "10.0.0.2"]),
            "203.0.113.9"
        );
        assert_eq!(
            address_of("10.0.0.1", &["203.0.113.9, what, 10.0.0.2"]),
            "10.0.0.2"
        );
    }

    #[test]
    fn a_request_is_known_by_its_key_or_by_its_body() {
        let no_key = HeaderMap::new();
        let key = headers(&[(IDEMPOTENCY_KEY, "k")]);
        let at = |uri: &'static str, headers: &HeaderMap, body: &str| {
            fingerprint(&Uri::from_static(uri), headers, body.as_bytes())
        };
        let of = |headers: &HeaderMap, body: &str| at("/r?m=1", headers, body);
        assert_eq!(of(&no_key, "a"), of(&no_key, "a"));
        assert_ne!(of(&no_key, "a").digest, of(&no_key, "b").digest);
        assert_eq!(of(&key, "a"), of(&key, "b"));
        assert!(of(&key, "a").is_unique && !of(&no_key, "a").is_unique);
        for other in ["/s?m=1", "/r?m=2", "/r"] {
            assert_ne!(of(&no_key, "a").digest, at(other, &no_key, "a").digest, "{other}");
        }
    }

    #[test]
    fn a_preferred_wait_is_found_among_other_preferences_and_bounded() {
        let wait = |value: &'static str| preferred_wait(&headers(&[(PREFER, value)])).as_secs();
        assert_eq!(wait("wait=30"), 30);
        assert_eq!(wait("respond-async, Wait = \"5\"; foo"), 5);
        assert_eq!(wait("wait=86400"), 60);
        assert_eq!(wait("wait=soon"), 0);
        assert_eq!(wait("return=minimal"), 0);
    }
}
