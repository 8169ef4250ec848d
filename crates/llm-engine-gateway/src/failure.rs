use std::time::Duration;

/// The deployment did not deliver, or could not deliver in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection could be made, so it knows nothing of the request.
    #[error("the model server can't be reached: {0}")]
    Unreachable(String),
    /// It broke off, failed, or answered nonsense.
    #[error("the model server failed: {0}")]
    Broken(String),
    /// It can't be used as it is configured: it does not take our credential, knows no such model or path, or wants money.
    #[error("the model server can't be used as this server is configured: {0}")]
    Misconfigured(String),
    /// It took too long.
    #[error("the model server did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// We shut down before it was through.
    #[error("the server shut down before the answer was whole")]
    CutOff,
    /// It refuses the request as it is.
    #[error("{message}")]
    Rejected {
        /// The deployment's own words.
        message: String,
        /// Its word for programs, such as `context_length_exceeded`.
        code: Option<String>,
        /// The field that it complains about.
        param: Option<String>,
    },
    /// It said 429.
    #[error("the model server is limiting requests; try again in about {} s", .retry_after.as_secs_f64().ceil())]
    Limited {
        /// Its own hint, or a guess.
        retry_after: Duration,
    },
}

/// Whose mistake it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request has to change.
    Caller,
    /// The deployment has to recover.
    Upstream,
    /// The configuration has to change, or the account at the provider.
    Operator,
}

impl Failure {
    /// Whose mistake it was.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Rejected { .. } => Fault::Caller,
            Self::Misconfigured(_) => Fault::Operator,
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut(_)
            | Self::CutOff
            | Self::Limited { .. } => Fault::Upstream,
        }
    }

    /// Whether another deployment might do.
    pub(crate) fn is_of_the_deployment(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Misconfigured(_)
            | Self::TimedOut(_)
            | Self::Limited { .. } => true,
            Self::CutOff | Self::Rejected { .. } => false,
        }
    }

    /// The word in the answer's body and in the log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => "upstream_failed",
            Self::Misconfigured(_) => "upstream_misconfigured",
            Self::TimedOut(_) => "upstream_timeout",
            Self::CutOff => "draining",
            Self::Rejected { .. } => "upstream_rejected",
            Self::Limited { .. } => "upstream_limited",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Misconfigured(_) => 502,
            Self::TimedOut(_) => 504,
            Self::CutOff => 503,
            Self::Rejected { .. } => 400,
            Self::Limited { .. } => 429,
        }
    }

    /// When another attempt makes sense, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after } => Some(*retry_after),
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::Misconfigured(_)
            | Self::TimedOut(_)
            | Self::CutOff
            | Self::Rejected { .. } => None,
        }
    }
}
