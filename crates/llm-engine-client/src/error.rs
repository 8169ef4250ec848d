use std::fmt;
use std::time::Duration;

use llm_engine_retry::{Attempt, Reason};

use crate::failed::Failed;

/// Why a call has no answer: how its last attempt failed, and why there was no other.
///
/// ```
/// use llm_engine_client::{Client, ErrorKind, Retry};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// // Nobody listens on port 1.
/// let client = Client::builder("http://127.0.0.1:1").retry(Retry::never()).build().unwrap();
/// let error = client.models().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Connection);
/// assert_eq!(error.attempts().len(), 1);
/// assert!(error.to_string().starts_with("can't connect to http://127.0.0.1:1"));
/// # });
/// ```
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    failed: Failed,
    reason: Reason,
    attempts: Vec<Attempt>,
}

/// What went wrong.
///
/// Which of them are tried again: refusals, failures of the server and of the connection. The others would fail again.
///
/// ```no_run
/// use llm_engine_client::{Call, Client, ErrorKind};
///
/// # async fn example(client: Client, call: Call) {
/// match client.call(call).await {
///     Ok(answer) => println!("{:?}", answer.body),
///     Err(error) => match error.kind() {
///         ErrorKind::BudgetSpent => println!("no more this month"),
///         ErrorKind::Invalid | ErrorKind::NotFound => println!("our mistake: {}", error.message()),
///         _ => println!("perhaps later: {error}"),
///     },
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Refused for now, by a rate limit or because the models are full: 429.
    Refused,
    /// A budget is spent, and nothing comes back soon: 402, or 429 with `insufficient_quota`.
    BudgetSpent,
    /// The request is wrong: 400, 405, 409, 413, 422, or it could not even be sent.
    Invalid,
    /// The API key is not accepted, or not for this: 401, 403.
    Unauthorized,
    /// There is no such model, or other thing: 404.
    NotFound,
    /// The server, or what is behind it, failed: 408, 5xx.
    Server,
    /// The server can't be reached, or the connection broke before there was an answer.
    Connection,
    /// The call's time was over before there was an answer.
    Deadline,
    /// A stream ended early, after text of it had been handed out.
    BrokenOff,
    /// The answer is not what was asked for.
    Unexpected,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller: the request, the key, how much was asked for, or how little time was allowed.
    Caller,
    /// The server, or what is behind it.
    Server,
    /// What is between the two.
    Network,
}

impl Error {
    pub(crate) fn new(failed: Failed, reason: Reason, attempts: Vec<Attempt>) -> Self {
        Self(Box::new(Parts {
            failed,
            reason,
            attempts,
        }))
    }

    /// Something that is wrong before anything was sent.
    pub(crate) fn unsent(message: impl Into<String>) -> Self {
        Self::new(Failed::invalid(message), Reason::Permanent, Vec::new())
    }

    /// What went wrong, at the last attempt.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.failed.kind
    }

    /// The status of the last answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.failed.status
    }

    /// The server's word for it, such as `rate_limited`: stable, for programs.
    ///
    /// Those of this server are in its documentation: `rate_limited`, `saturated`, `upstream_limited`, `budget_exhausted`,
    /// `never_fits`, `draining`, … Of OpenAI's dialect also `insufficient_quota`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.failed.code.as_deref()
    }

    /// The policy that refused.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.0.failed.policy.as_deref()
    }

    /// What happened, in one sentence: the server's own to the letter, if it sent one. Displayed, the error begins with the status
    /// and the code, has no full stop, and says how often and how long it was tried.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.failed.message
    }

    /// When the server said to come back, after its last answer.
    ///
    /// From then, not from now. Up to the ceiling of hints, which is 120 s by default, the client has waited as long before its other
    /// attempts.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.failed.retry_after
    }

    /// Whether that time is kept for this call alone.
    ///
    /// Who makes the same call then, within 3 s, is admitted before others.
    #[must_use]
    pub fn is_booked(&self) -> bool {
        self.0.failed.is_booked()
    }

    /// What the server calls the last request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.failed.request_id.as_deref()
    }

    /// Every attempt that failed, the first one first; empty if nothing was sent.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }

    /// Whether the server can have seen anything of the last attempt.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.0.failed.was_sent
    }

    /// Why there was no other attempt.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Whether the same call may succeed at another time.
    ///
    /// So a program that has a queue of its own knows whether to put the work back.
    ///
    /// ```no_run
    /// # async fn example(client: llm_engine_client::Client, call: llm_engine_client::Call) {
    /// if let Err(error) = client.call(call).await {
    ///     if error.is_transient() {
    ///         println!("again in {:?}", error.retry_after());
    ///     } else {
    ///         println!("{:?}, code {:?}: {}", error.fault(), error.code(), error.message());
    ///     }
    ///     for attempt in error.attempts() {
    ///         println!("{attempt:?}");
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self.0.reason, Reason::Permanent)
    }

    /// Who can do something about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self.kind() {
            // "As needed", as opposed to a limit that the caller has reached.
            ErrorKind::Refused if matches!(self.code(), Some("saturated" | "upstream_limited")) => {
                Fault::Server
            }
            ErrorKind::Refused
            | ErrorKind::BudgetSpent
            | ErrorKind::Invalid
            | ErrorKind::Unauthorized
            | ErrorKind::NotFound
            | ErrorKind::Deadline => Fault::Caller,
            ErrorKind::Server | ErrorKind::BrokenOff | ErrorKind::Unexpected => Fault::Server,
            ErrorKind::Connection => Fault::Network,
        }
    }

    /// How long it was tried.
    fn elapsed(&self) -> Duration {
        let last = self.attempts().last();
        last.map_or(Duration::ZERO, |last| last.began + last.took)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            failed,
            reason,
            attempts,
        } = &*self.0;
        write!(f, "{failed}")?;
        let count = attempts.len();
        match reason {
            Reason::Permanent if count > 1 => write!(f, " (attempt {count})"),
            Reason::Permanent | Reason::Committed => Ok(()),
            reason => {
                let s = if count == 1 { "" } else { "s" };
                let elapsed = self.elapsed().as_secs_f64();
                write!(
                    f,
                    "; gave up after {count} attempt{s} over {elapsed:.1} s: {reason}"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
