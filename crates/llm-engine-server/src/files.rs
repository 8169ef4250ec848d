//! Files on the local disk, each its owner's alone: what callers upload, and what batches write.
//!
//! In the folder a file is two: its content under its id, and, written last, its description as JSON. What has no description after
//! a crash was not whole and is deleted at the start. Everything here blocks, where it says so, on the disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_wire::file::{self, Purpose};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk;

/// How much is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSetup {
    /// Of one file that is uploaded.
    pub file_bytes: u64,
    /// Of all files of one caller. Outputs of batches count, but are written beyond it: then nothing more can be uploaded.
    pub bytes_per_caller: u64,
    /// How many files of one caller, in the same way.
    pub files_per_caller: usize,
    /// How long.
    pub keep: Duration,
}

/// Why a file can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    #[error("your files would take more than {0} bytes together; delete some, DELETE /v1/files/{{id}}")]
    CallerFull(u64),
    #[error("you have {0} files, which is the most; delete some, DELETE /v1/files/{{id}}")]
    TooMany(usize),
}

/// All files.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    setup: FilesSetup,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    files: HashMap<String, Arc<StoredFile>>,
    /// What each caller's files take, those that are being uploaded among them.
    used: HashMap<String, Used>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    files: usize,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    pub(crate) id: String,
    owner: String,
    pub(crate) filename: String,
    pub(crate) purpose: Purpose,
    pub(crate) bytes: u64,
    created_ms: i64,
    expires_ms: i64,
}

/// What is said of a file when it is whole.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) filename: String,
    pub(crate) purpose: Purpose,
    /// How long it is kept at most; the setup may say less.
    pub(crate) keep: Option<Duration>,
    pub(crate) now: Timestamp,
}

/// A file that is being written. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct NewFile {
    id: String,
    owner: String,
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

/// What an upload takes of its caller's share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    files: Arc<Files>,
    owner: String,
    bytes: u64,
}

/// A new name.
pub(crate) fn new_id() -> String {
    format!("file-{}", Uuid::new_v4().simple())
}

impl Files {
    /// What is in the folder, which is made if it is not there. Blocks.
    pub(crate) fn open(folder: PathBuf, setup: FilesSetup) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut index = Index::default();
        let mut contents = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => match read_description(&path) {
                    Ok(file) => drop(index.add(file)),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "the description of a file can't be read");
                    }
                },
                Some(disk::PARTIAL) => disk::remove(&path)?,
                _ => contents.push(path),
            }
        }
        for path in contents {
            let id = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !index.files.contains_key(id) && !description(&folder, id).exists() {
                disk::remove(&path)?;
            }
        }
        Ok(Self {
            folder,
            setup,
            index: Mutex::new(index),
        })
    }

    /// The bounds.
    pub(crate) fn setup(&self) -> &FilesSetup {
        &self.setup
    }

    /// The file of this name, if it is the caller's.
    pub(crate) fn find(&self, owner: &str, id: &str, now: Timestamp) -> Option<Arc<StoredFile>> {
        let index = self.index();
        let file = index.files.get(id)?;
        (file.owner == owner && !file.is_over(now)).then(|| Arc::clone(file))
    }

    /// All files of the caller, the oldest first.
    pub(crate) fn list(&self, owner: &str, now: Timestamp) -> Vec<Arc<StoredFile>> {
        let index = self.index();
        let own = index
            .files
            .values()
            .filter(|file| file.owner == owner && !file.is_over(now));
        let mut own: Vec<_> = own.cloned().collect();
        drop(index);
        own.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        own
    }

    /// How many files there are, and how many bytes they have.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let index = self.index();
        let bytes = index.files.values().map(|file| file.bytes).sum();
        (index.files.len(), bytes)
    }

    /// Where the content of a file is.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Room for one more file of the caller's; its bytes are asked for as they come.
    pub(crate) fn reserve(self: &Arc<Self>, owner: &str) -> Result<Reservation, FileError> {
        let mut index = self.index();
        let used = index.used.entry(owner.to_owned()).or_default();
        if used.files >= self.setup.files_per_caller {
            return Err(FileError::TooMany(self.setup.files_per_caller));
        }
        used.files += 1;
        Ok(Reservation {
            files: Arc::clone(self),
            owner: owner.to_owned(),
            bytes: 0,
        })
    }

    /// Begins to write a file. Blocks.
    pub(crate) fn create(&self, owner: &str, id: String) -> io::Result<NewFile> {
        let path = self.path(&id);
        let file = BufWriter::with_capacity(256 << 10, File::create(disk::partial(&path))?);
        Ok(NewFile {
            id,
            owner: owner.to_owned(),
            path,
            file,
            bytes: 0,
        })
    }

    /// Has a file that is whole appear, in place of one of its name. Blocks until it is on the disk.
    pub(crate) fn keep(&self, mut new: NewFile, description: Description) -> io::Result<Arc<StoredFile>> {
        new.file.flush()?;
        new.file.get_ref().sync_all()?;
        disk::appear(&new.path)?;
        let keep = description.keep.unwrap_or(Duration::MAX).min(self.setup.keep);
        let created_ms = description.now.as_millisecond();
        let file = StoredFile {
            id: new.id.clone(),
            owner: new.owner.clone(),
            filename: description.filename,
            purpose: description.purpose,
            bytes: new.bytes,
            created_ms,
            expires_ms: created_ms.saturating_add(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)),
        };
        let json = serde_json::to_vec(&file)?;
        if let Err(error) = disk::replace(&self::description(&self.folder, &file.id), &json) {
            let _ = disk::remove(&new.path);
            return Err(error);
        }
        Ok(self.index().add(file))
    }

    /// Deletes a file. Blocks.
    pub(crate) fn delete(&self, file: &StoredFile) -> io::Result<()> {
        disk::remove(&description(&self.folder, &file.id))?;
        self.index().forget(&file.id);
        disk::remove(&self.path(&file.id))
    }

    /// Deletes the files whose time is over. Blocks.
    pub(crate) fn sweep(&self, now: Timestamp) -> io::Result<()> {
        let over: Vec<_> = {
            let index = self.index();
            let over = index.files.values().filter(|file| file.is_over(now));
            over.cloned().collect()
        };
        over.iter().try_for_each(|file| self.delete(file))
    }

    /// Only counted in it; every step leaves it consistent.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn description(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.json"))
}

fn read_description(path: &Path) -> io::Result<StoredFile> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

impl Index {
    fn add(&mut self, file: StoredFile) -> Arc<StoredFile> {
        self.forget(&file.id);
        let used = self.used.entry(file.owner.clone()).or_default();
        used.bytes += file.bytes;
        used.files += 1;
        let file = Arc::new(file);
        self.files.insert(file.id.clone(), Arc::clone(&file));
        file
    }

    fn forget(&mut self, id: &str) {
        if let Some(file) = self.files.remove(id) {
            self.give_back(&file.owner, file.bytes);
        }
    }

    /// One file of so many bytes less.
    fn give_back(&mut self, owner: &str, bytes: u64) {
        if let Some(used) = self.used.get_mut(owner) {
            used.bytes -= bytes;
            used.files -= 1;
            if *used == Used::default() {
                self.used.remove(owner);
            }
        }
    }
}

impl Reservation {
    /// So many bytes more.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), FileError> {
        let setup = &self.files.setup;
        if self.bytes + bytes > setup.file_bytes {
            return Err(FileError::TooLarge(setup.file_bytes));
        }
        let mut index = self.files.index();
        let used = index.used.entry(self.owner.clone()).or_default();
        if used.bytes + bytes > setup.bytes_per_caller {
            return Err(FileError::CallerFull(setup.bytes_per_caller));
        }
        used.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.files.index().give_back(&self.owner, self.bytes);
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    /// What was kept has another name by now.
    fn drop(&mut self) {
        let _ = disk::remove(&disk::partial(&self.path));
    }
}

impl StoredFile {
    fn is_over(&self, now: Timestamp) -> bool {
        now.as_millisecond() >= self.expires_ms
    }

    /// As callers see it.
    pub(crate) fn shown(&self) -> file::File {
        file::File {
            id: self.id.clone(),
            object: "file",
            bytes: self.bytes,
            size: self.bytes,
            created_at: self.created_ms.div_euclid(1000),
            expires_at: self.expires_ms.div_euclid(1000),
            filename: self.filename.clone(),
            purpose: self.purpose,
            status: "processed",
        }
    }
}

#[cfg(test)]
mod tests;
