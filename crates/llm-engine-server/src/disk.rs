//! Small files that are whole or not there, whatever happens while they are written.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

/// What is written has this behind its name until it is whole.
pub(crate) const PARTIAL: &str = "partial";

/// Has something done that waits for the disk, on a thread for such things.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Writes a file, in place of what was there: after a crash it is the old one or the new one. Blocks until it is on the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial(path);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| appear(path));
    if moved.is_err() {
        // It may be what the disk is full of.
        let _ = fs::remove_file(&partial);
    }
    moved
}

/// Gives what was written as partial, and is on the disk, its name.
pub(crate) fn appear(path: &Path) -> io::Result<()> {
    fs::rename(partial(path), path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What a file is called until it is whole.
pub(crate) fn partial(path: &Path) -> PathBuf {
    with_suffix(path, PARTIAL)
}

/// `a/b.json` and `partial` are `a/b.json.partial`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Deletes a file; that it is gone already is as good.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether there is no room on the disk, or none that we may have.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
