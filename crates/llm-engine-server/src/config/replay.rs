use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Mistake, Source};
use super::model::duration;
use super::spanned::Spanned;
use crate::ReplaySetup;

/// What is kept of answers to requests with an `Idempotency-Key`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Replay")]
pub(super) struct RawReplay {
    /// How long after its end an answer can be had again, at most 24h; by default 10m.
    keep: Option<Spanned<String>>,
    /// Of all answers together, those that are being given among them.
    memory_bytes: Option<usize>,
    /// Of one answer; a larger one can't be had again.
    answer_bytes: Option<Spanned<usize>>,
    /// How many are kept.
    answers: Option<NonZeroUsize>,
    /// How many of one caller.
    answers_per_caller: Option<NonZeroUsize>,
}

const DEFAULT_KEEP: Duration = Duration::from_secs(10 * 60);
/// Who has not come again by then does not come.
const LONGEST_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_MEMORY_BYTES: usize = 128 * 1024 * 1024;
const DEFAULT_ANSWER_BYTES: usize = 4 * 1024 * 1024;
const DEFAULT_ANSWERS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const DEFAULT_ANSWERS_PER_CALLER: NonZeroUsize = NonZeroUsize::new(2_000).expect("not zero");

pub(super) fn check(raw: RawReplay, source: &Source<'_>) -> Result<ReplaySetup, Mistake> {
    let RawReplay {
        keep,
        memory_bytes,
        answer_bytes,
        answers,
        answers_per_caller,
    } = raw;
    let memory_bytes = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
    if let Some(answer_bytes) = &answer_bytes
        && *answer_bytes.get_ref() > memory_bytes
    {
        let message = format!(
            "answer_bytes is {}, but all answers together have {memory_bytes} (memory_bytes)",
            answer_bytes.get_ref()
        );
        return Err(source.error(answer_bytes.span(), message));
    }
    let answer_bytes = answer_bytes.map(Spanned::into_inner);
    Ok(ReplaySetup {
        keep: keep.map_or(Ok(DEFAULT_KEEP), |keep| check_keep(&keep, source))?,
        memory_bytes,
        answer_bytes: answer_bytes.unwrap_or(DEFAULT_ANSWER_BYTES.min(memory_bytes)),
        answers: answers.unwrap_or(DEFAULT_ANSWERS),
        answers_per_caller: answers_per_caller.unwrap_or(DEFAULT_ANSWERS_PER_CALLER),
    })
}

fn check_keep(text: &Spanned<String>, source: &Source<'_>) -> Result<Duration, Mistake> {
    let keep = duration(text, "keep", source)?;
    if keep > LONGEST_KEEP {
        let message = format!(
            "keep is '{}'; answers can be kept for at most {} h",
            text.get_ref(),
            LONGEST_KEEP.as_secs() / 3600
        );
        return Err(source.error(text.span(), message));
    }
    Ok(keep)
}
