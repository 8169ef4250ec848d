use crate::Hint;

/// What a failure means for another attempt.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::{Hint, Judgement};
///
/// fn judge(status: u16, retry_after: Option<Duration>) -> Judgement {
///     match (status, retry_after) {
///         (429 | 503, Some(after)) => Judgement::Hinted(Hint { after, is_booked: false }),
///         (408 | 429 | 500..=599, _) => Judgement::Transient,
///         _ => Judgement::Permanent,
///     }
/// }
///
/// assert_eq!(judge(400, None), Judgement::Permanent);
/// assert_eq!(judge(502, None), Judgement::Transient);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It may go well the next time.
    Transient,
    /// It may go well the next time, and who failed said when.
    Hinted(Hint),
    /// It would fail again, however often it is tried.
    Permanent,
    /// A part of the answer is already in use, so that another attempt would give it twice.
    Committed,
}

/// A failed attempt: what it was, in words, and what it means.
///
/// ```
/// use llm_engine_retry::{Failure, Judgement};
///
/// let failure = Failure { what: "connection refused".into(), judgement: Judgement::Transient };
/// # let _ = failure;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, for the record.
    pub what: String,
    /// What it means.
    pub judgement: Judgement,
}
