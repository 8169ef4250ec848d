use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Source};
use super::model::duration;
use crate::ReplaySetup;

/// `[replay]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplay {
    keep: Option<Spanned<String>>,
    memory_bytes: Option<usize>,
    memory_bytes_per_caller: Option<Spanned<usize>>,
    answer_bytes: Option<Spanned<usize>>,
    answers: Option<NonZeroUsize>,
    answers_per_caller: Option<NonZeroUsize>,
}

const DEFAULT_KEEP: Duration = Duration::from_secs(10 * 60);
/// Who has not come again by then does not come.
const LONGEST_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_MEMORY_BYTES: usize = 128 * 1024 * 1024;
const DEFAULT_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// As many callers have all the memory that they may.
const CALLERS_THAT_FIT: usize = 4;
const DEFAULT_ANSWERS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const DEFAULT_ANSWERS_PER_CALLER: NonZeroUsize = NonZeroUsize::new(2_000).expect("not zero");

pub(super) fn check(raw: RawReplay, source: &Source<'_>) -> Result<ReplaySetup, ConfigError> {
    let RawReplay {
        keep,
        memory_bytes,
        memory_bytes_per_caller,
        answer_bytes,
        answers,
        answers_per_caller,
    } = raw;
    let memory_bytes = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
    let within = |bytes: &Option<Spanned<usize>>, name, most, of| match bytes {
        Some(bytes) if *bytes.get_ref() > most => {
            let message = format!("{name} is {}, but {of}", bytes.get_ref());
            Err(source.error(bytes.span(), message))
        }
        _ => Ok(()),
    };
    let all = format!("all answers together have {memory_bytes} (memory_bytes)");
    within(
        &memory_bytes_per_caller,
        "memory_bytes_per_caller",
        memory_bytes,
        &all,
    )?;
    within(&answer_bytes, "answer_bytes", memory_bytes, &all)?;
    let one_answer = answer_bytes
        .as_ref()
        .map_or(DEFAULT_ANSWER_BYTES.min(memory_bytes), |bytes| *bytes.get_ref());
    let share = || one_answer.max(memory_bytes / CALLERS_THAT_FIT);
    let memory_bytes_per_caller = memory_bytes_per_caller.map_or_else(share, Spanned::into_inner);
    let own =
        format!("all answers of a caller together have {memory_bytes_per_caller} (memory_bytes_per_caller)");
    within(&answer_bytes, "answer_bytes", memory_bytes_per_caller, &own)?;
    Ok(ReplaySetup {
        keep: keep.map_or(Ok(DEFAULT_KEEP), |keep| check_keep(&keep, source))?,
        memory_bytes,
        memory_bytes_per_caller,
        answer_bytes: one_answer.min(memory_bytes_per_caller),
        answers: answers.unwrap_or(DEFAULT_ANSWERS),
        answers_per_caller: answers_per_caller.unwrap_or(DEFAULT_ANSWERS_PER_CALLER),
    })
}

fn check_keep(text: &Spanned<String>, source: &Source<'_>) -> Result<Duration, ConfigError> {
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
