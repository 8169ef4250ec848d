use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::arrival::IDEMPOTENCY_KEY;

/// How long the work goes on when nobody listens any more, for who comes again.
const KEEP_SECONDS: HeaderName = HeaderName::from_static("x-llm-engine-keep-seconds");
const MOST_KEEP_SECONDS: u64 = 300;

/// As many bytes as other servers allow.
const LONGEST_KEY: usize = 255;

/// What the headers of a keyed request ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim<'a> {
    pub(crate) key: &'a str,
    /// How long its work goes on without it.
    pub(crate) keep: Duration,
}

/// SHA-256 of a request: by a shorter one, which collides if somebody wants it to, a request could get the answer to another.
pub(super) type Digest = [u8; 32];

/// What the headers ask for makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidClaim {
    #[error(
        "Idempotency-Key is empty; it must be 1 to {LONGEST_KEY} visible ASCII characters, such as a UUID."
    )]
    EmptyKey,
    #[error(
        "Idempotency-Key has {0} bytes; it must be 1 to {LONGEST_KEY} visible ASCII characters, such as a UUID."
    )]
    LongKey(usize),
    #[error(
        "Idempotency-Key has other characters; it must be 1 to {LONGEST_KEY} visible ASCII characters, such as a UUID."
    )]
    OtherCharacters,
    #[error("{KEEP_SECONDS} must be a whole number from 0 to {MOST_KEEP_SECONDS}.")]
    Keep,
    /// Nobody knows which one is meant.
    #[error("The header {0} must be there only once.")]
    Twice(HeaderName),
}

impl<'a> Claim<'a> {
    /// Of a request that has an idempotency key.
    pub(crate) fn read(headers: &'a HeaderMap) -> Result<Self, InvalidClaim> {
        Ok(Self {
            key: check_key(only(headers, &IDEMPOTENCY_KEY)?.unwrap_or_default())?,
            keep: check_keep(only(headers, &KEEP_SECONDS)?)?,
        })
    }
}

/// What the query and the body say, byte for byte.
pub(super) fn digest(query: Option<&str>, body: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    // A query has no line break, so that nothing moves between the two.
    hasher.update(query.unwrap_or_default());
    hasher.update(b"\n");
    hasher.update(body);
    hasher.finalize().into()
}

/// An idempotency key that can be used.
pub(crate) fn check_key(key: &[u8]) -> Result<&str, InvalidClaim> {
    let key = std::str::from_utf8(key).map_err(|_| InvalidClaim::OtherCharacters)?;
    match key.len() {
        0 => Err(InvalidClaim::EmptyKey),
        _ if !key.bytes().all(|byte| byte.is_ascii_graphic()) => Err(InvalidClaim::OtherCharacters),
        1..=LONGEST_KEY => Ok(key),
        bytes => Err(InvalidClaim::LongKey(bytes)),
    }
}

fn check_keep(seconds: Option<&[u8]>) -> Result<Duration, InvalidClaim> {
    let Some(seconds) = seconds else {
        return Ok(Duration::ZERO);
    };
    let digits = std::str::from_utf8(seconds).ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.and_then(|digits| digits.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds <= MOST_KEEP_SECONDS);
    seconds.map(Duration::from_secs).ok_or(InvalidClaim::Keep)
}

/// The header's value.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, InvalidClaim> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    match values.next() {
        None => Ok(first),
        Some(_) => Err(InvalidClaim::Twice(name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(pairs: &[(HeaderName, &'static [u8])]) -> Option<(String, u64)> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value).expect("a header value"));
        }
        let claim = Claim::read(&headers).ok()?;
        Some((claim.key.to_owned(), claim.keep.as_secs()))
    }

    #[test]
    fn a_key_is_up_to_255_visible_characters() {
        static LONG: [u8; 256] = [b'k'; 256];
        assert_eq!(
            claim(&[(IDEMPOTENCY_KEY, b"a-1/\"~!")]),
            Some(("a-1/\"~!".to_owned(), 0))
        );
        assert!(claim(&[(IDEMPOTENCY_KEY, &LONG[1..])]).is_some());
        for wrong in [b"".as_slice(), b"a b", b"a\tb", "é".as_bytes(), b"\xff", &LONG] {
            assert_eq!(check_key(wrong).ok(), None, "{wrong:?}");
        }
        assert_eq!(claim(&[(IDEMPOTENCY_KEY, b"a"), (IDEMPOTENCY_KEY, b"b")]), None);
    }

    #[test]
    fn work_is_kept_for_up_to_300_whole_seconds() {
        let keep = |value| claim(&[(IDEMPOTENCY_KEY, b"k"), (KEEP_SECONDS, value)]).map(|(_, keep)| keep);
        assert_eq!(keep(b"0"), Some(0));
        assert_eq!(keep(b"300"), Some(300));
        for wrong in [
            b"301".as_slice(),
            b"-1",
            b"+1",
            b"1.5",
            b"",
            b"soon",
            b"99999999999999999999999",
        ] {
            assert_eq!(keep(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_moves_between_query_and_body() {
        let all = [
            digest(Some("a"), b"b"),
            digest(Some("ab"), b""),
            digest(None, b"ab"),
            digest(Some("a"), b"\nb"),
            digest(None, b"a\nb"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
    }
}
