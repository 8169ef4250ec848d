use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use llm_engine_retry::{Hint, Judgement};
use llm_engine_wire::said::Said;

use crate::ErrorKind;
use crate::answer::request_id;
use crate::transport::causes;

/// A failed attempt: what it was, and whether another one can help.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) kind: ErrorKind,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) policy: Option<String>,
    /// The server's words to the letter, if they are its words.
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    /// Whether the server can have seen anything of the request.
    pub(crate) was_sent: bool,
    pub(crate) judgement: Judgement,
}

impl Failed {
    fn new(kind: ErrorKind, message: impl Into<String>, judgement: Judgement) -> Self {
        Self {
            kind,
            status: None,
            code: None,
            policy: None,
            message: message.into(),
            retry_after: None,
            request_id: None,
            was_sent: true,
            judgement,
        }
    }

    /// A request that can't be sent.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message, Judgement::Permanent)
    }

    /// An answer that another attempt would not change.
    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unexpected, message, Judgement::Permanent)
    }

    /// What was sent may have arrived: the idempotency key makes it safe to send it again.
    pub(crate) fn connection(error: reqwest::Error, base: &str) -> Self {
        if error.is_builder() {
            return Self::invalid(format!(
                "the request can't be made: {}",
                causes(&error.without_url())
            ));
        }
        let was_sent = !error.is_connect();
        let did = if was_sent {
            "there was no whole answer from"
        } else {
            "can't connect to"
        };
        let message = format!("{did} {base}: {}", innermost(&error.without_url()));
        Self {
            was_sent,
            ..Self::new(ErrorKind::Connection, message, Judgement::Transient)
        }
    }

    /// An attempt that took longer than one may.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        let message = format!("there was no answer within {:.1} s", limit.as_secs_f64());
        Self::new(ErrorKind::Connection, message, Judgement::Transient)
    }

    /// The call's time is over.
    pub(crate) fn deadline(limit: Duration) -> Self {
        let message = format!("the call was not done within {:.1} s", limit.as_secs_f64());
        Self::new(ErrorKind::Deadline, message, Judgement::Transient)
    }

    /// No call leaves for longer than this one has time.
    pub(crate) fn held(held: Duration) -> Self {
        let message = format!(
            "all calls to this model are held for another {:.1} s, as the server has asked: longer than this one may take",
            held.as_secs_f64()
        );
        Self {
            retry_after: Some(held),
            was_sent: false,
            ..Self::new(ErrorKind::Deadline, message, Judgement::Transient)
        }
    }

    /// A stream that ended before its first text.
    pub(crate) fn ended_early() -> Self {
        Self::new(
            ErrorKind::Connection,
            "the stream ended before its first text",
            Judgement::Transient,
        )
    }

    /// The same, after text of it has been handed out: it can't be taken back.
    pub(crate) fn broken_off(self, events: u64) -> Self {
        let s = if events == 1 { "" } else { "s" };
        Self {
            kind: match self.kind {
                ErrorKind::Deadline => ErrorKind::Deadline,
                _ => ErrorKind::BrokenOff,
            },
            message: format!("the stream broke off after {events} event{s}: {}", self.message),
            judgement: Judgement::Committed,
            ..self
        }
    }

    /// A stream that ends without its end.
    pub(crate) fn without_end() -> Self {
        Self::new(
            ErrorKind::Connection,
            "the connection was closed before the end",
            Judgement::Transient,
        )
    }

    /// An answer whose status is not one of success.
    pub(crate) fn answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let said = Said::read(body);
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let should_retry = header("x-should-retry").map(|word| word.trim().eq_ignore_ascii_case("true"));
        let after = hint(status, header).or(said.retry_after);
        let request_id = request_id(headers).map(str::to_owned).or(said.request_id.clone());
        let judgement = match (
            is_transient(status.as_u16(), should_retry, said.code.as_deref()),
            after,
        ) {
            (false, _) => Judgement::Permanent,
            (true, None) => Judgement::Transient,
            (true, Some(after)) => Judgement::Hinted(Hint {
                after,
                is_booked: said.is_booked,
            }),
        };
        Self {
            retry_after: after,
            request_id,
            ..Self::said(Some(status), said, judgement)
        }
    }

    /// An error in place of the next event of a stream.
    pub(crate) fn event(status: Option<StatusCode>, said: Said) -> Self {
        let is_transient = match status {
            Some(status) => is_transient(status.as_u16(), None, said.code.as_deref()),
            None => {
                let permanent = [
                    "invalid_request_error",
                    "insufficient_quota",
                    "authentication_error",
                ];
                !said.kind.as_deref().is_some_and(|kind| permanent.contains(&kind))
            }
        };
        let judgement = match said.retry_after {
            _ if !is_transient => Judgement::Permanent,
            None => Judgement::Transient,
            Some(after) => Judgement::Hinted(Hint {
                after,
                is_booked: said.is_booked,
            }),
        };
        Self::said(status, said, judgement)
    }

    fn said(status: Option<StatusCode>, said: Said, judgement: Judgement) -> Self {
        let words = || status.and_then(|status| status.canonical_reason());
        let kind = match status {
            Some(status) => kind_of_status(status.as_u16(), said.code.as_deref()),
            None => kind_of_word(said.kind.as_deref(), said.code.as_deref()),
        };
        let message = said.message.or_else(|| words().map(str::to_owned));
        Self {
            status: status.map(|status| status.as_u16()),
            code: said.code,
            policy: said.policy,
            retry_after: said.retry_after,
            request_id: said.request_id,
            ..Self::new(
                kind,
                message.unwrap_or_else(|| "an unknown error".to_owned()),
                judgement,
            )
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // More may follow, as it does in most programs that show an error.
        let message = self.message.trim_end_matches('.');
        match (self.status, &self.code) {
            (Some(status), Some(code)) if *code != status.to_string() => {
                write!(f, "{status} {code}: {message}")
            }
            (Some(status), _) => write!(f, "{status}: {message}"),
            (None, _) => f.write_str(message),
        }
    }
}

const INSUFFICIENT_QUOTA: &str = "insufficient_quota";

/// Whether the same request may be answered otherwise at another time. The server's word goes before its status.
fn is_transient(status: u16, should_retry: Option<bool>, code: Option<&str>) -> bool {
    let by_status = match status {
        429 => code != Some(INSUFFICIENT_QUOTA),
        501 => false,
        408 | 500..=599 => true,
        _ => false,
    };
    should_retry.unwrap_or(by_status)
}

/// When to come back. What the quotas look like says so only where one of them refused.
fn hint<'a>(status: StatusCode, header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    const SAID: [&str; 3] = ["retry-after-ms", "x-ms-retry-after-ms", "retry-after"];
    let header = |name: &str| {
        let counts = status == StatusCode::TOO_MANY_REQUESTS || SAID.contains(&name);
        counts.then(|| header(name))?
    };
    let since_unix_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Hint::from_headers(header, since_unix_epoch).map(|hint| hint.after)
}

fn kind_of_status(status: u16, code: Option<&str>) -> ErrorKind {
    match status {
        429 if code == Some(INSUFFICIENT_QUOTA) => ErrorKind::BudgetSpent,
        429 => ErrorKind::Refused,
        402 => ErrorKind::BudgetSpent,
        400 | 405 | 409 | 413 | 422 => ErrorKind::Invalid,
        401 | 403 => ErrorKind::Unauthorized,
        404 => ErrorKind::NotFound,
        408 | 500..=599 => ErrorKind::Server,
        _ => ErrorKind::Unexpected,
    }
}

/// Errors in streams of OpenAI's dialect have no status.
fn kind_of_word(kind: Option<&str>, code: Option<&str>) -> ErrorKind {
    match (kind, code) {
        (_, Some(INSUFFICIENT_QUOTA)) | (Some(INSUFFICIENT_QUOTA), _) => ErrorKind::BudgetSpent,
        (_, Some("rate_limited" | "saturated" | "upstream_limited" | "rate_limit_exceeded")) => {
            ErrorKind::Refused
        }
        (Some("rate_limit_error"), _) => ErrorKind::Refused,
        (Some("invalid_request_error"), _) => ErrorKind::Invalid,
        _ => ErrorKind::Server,
    }
}

/// What an error was caused by in the end.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests;
