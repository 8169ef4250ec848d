use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Mistake, Source};
use super::model::duration;
use super::spanned::Spanned;
use crate::{BatchesSetup, FilesSetup};

/// What is kept of files.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Files")]
pub(super) struct RawFiles {
    /// The largest file that can be uploaded; by default 100 MiB.
    file_bytes: Option<Spanned<NonZeroU64>>,
    /// Of all files of one caller, by default 1 GiB. Outputs of batches count, but are written all the same.
    bytes_per_caller: Option<NonZeroU64>,
    /// How many files of one caller; by default 1,000.
    files_per_caller: Option<NonZeroUsize>,
    /// How long, at most 365d; by default 30d.
    keep: Option<Spanned<String>>,
}

/// How many batches there may be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Batches")]
pub(super) struct RawBatches {
    /// The most rows of one; by default 50,000.
    rows: Option<NonZeroU64>,
    /// How many of one caller are known, by default 1,000; those that ended first make room.
    per_caller: Option<NonZeroUsize>,
    /// How many of one caller run at the same time, by default 4; others wait.
    running_per_caller: Option<NonZeroUsize>,
    /// How long one is known after its end, at most 365d; by default 30d.
    keep: Option<Spanned<String>>,
}

const DEFAULT_FILE_BYTES: u64 = 100 << 20;
const DEFAULT_BYTES_PER_CALLER: u64 = 1 << 30;
const DEFAULT_FILES_PER_CALLER: usize = 1_000;
const DEFAULT_ROWS: u64 = 50_000;
const DEFAULT_PER_CALLER: usize = 1_000;
const DEFAULT_RUNNING: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_KEEP_DAYS: u32 = 30;
const MOST_KEEP_DAYS: u32 = 365;

pub(super) fn check_files(raw: RawFiles, source: &Source<'_>) -> Result<FilesSetup, Mistake> {
    let RawFiles {
        file_bytes,
        bytes_per_caller,
        files_per_caller,
        keep,
    } = raw;
    let bytes_per_caller = bytes_per_caller.map_or(DEFAULT_BYTES_PER_CALLER, NonZeroU64::get);
    if let Some(bytes) = &file_bytes
        && bytes.get_ref().get() > bytes_per_caller
    {
        let message = format!(
            "file_bytes is {}, but all files of a caller together have {bytes_per_caller} (bytes_per_caller)",
            bytes.get_ref()
        );
        return Err(source.error(bytes.span(), message));
    }
    let file_bytes = file_bytes.map_or(DEFAULT_FILE_BYTES, |bytes| bytes.get_ref().get());
    Ok(FilesSetup {
        file_bytes: file_bytes.min(bytes_per_caller),
        bytes_per_caller,
        files_per_caller: files_per_caller.map_or(DEFAULT_FILES_PER_CALLER, NonZeroUsize::get),
        keep: check_keep(keep, source)?,
    })
}

pub(super) fn check_batches(raw: RawBatches, source: &Source<'_>) -> Result<BatchesSetup, Mistake> {
    let RawBatches {
        rows,
        per_caller,
        running_per_caller,
        keep,
    } = raw;
    Ok(BatchesSetup {
        rows: rows.map_or(DEFAULT_ROWS, NonZeroU64::get),
        per_caller: per_caller.map_or(DEFAULT_PER_CALLER, NonZeroUsize::get),
        running_per_caller: running_per_caller.unwrap_or(DEFAULT_RUNNING),
        keep: check_keep(keep, source)?,
    })
}

fn check_keep(keep: Option<Spanned<String>>, source: &Source<'_>) -> Result<Duration, Mistake> {
    let Some(text) = keep else {
        return Ok(DEFAULT_KEEP_DAYS * DAY);
    };
    let keep = duration(&text, "keep", source)?;
    if keep > MOST_KEEP_DAYS * DAY || keep.is_zero() {
        let message = format!(
            "keep is '{}'; it must be more than 0s and at most {MOST_KEEP_DAYS}d",
            text.get_ref()
        );
        return Err(source.error(text.span(), message));
    }
    Ok(keep)
}
