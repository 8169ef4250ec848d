use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Input, Journal, JournalError, SurveyError, journal_of};

/// Why a run can be neither begun nor gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The input can't.
    #[error("{}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SurveyError,
    },
    /// There is something where the output would go.
    #[error(
        "{} is there already, and is not the output of a run that can be gone on with; name another, or delete it",
        .0.display()
    )]
    OutputExists(PathBuf),
}

/// The journal of the run whose output this is: of the one that was begun, else of a new one. What is in `settings` must not
/// change while a run is gone on with.
///
/// # Errors
/// [`OpenError`], if the journal is of another run or the input can't be run. Nothing has been sent then.
pub fn open(output: &Path, input: &Input, settings: Value) -> Result<Journal, OpenError> {
    let wrong = |source| OpenError::Input {
        path: input.path().to_owned(),
        source,
    };
    let path = journal_of(output);
    if let Some(journal) = Journal::resume(&path)? {
        let (bytes, sha256) = input.digest().map_err(|error: io::Error| wrong(error.into()))?;
        journal.check(bytes, &sha256, &settings)?;
        return Ok(journal);
    }
    if output.exists() {
        return Err(OpenError::OutputExists(output.to_owned()));
    }
    let survey = input.survey().map_err(wrong)?;
    Ok(Journal::begin(&path, survey, settings)?)
}
