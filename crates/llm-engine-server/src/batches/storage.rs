use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::BatchesSetup;
use super::record::Record;
use crate::disk;
use crate::files::{Files, FilesSetup};

/// Files and batches as they are on the disk, before anything is done with them.
#[derive(Debug)]
pub struct Storage {
    pub(super) folder: PathBuf,
    pub(super) files: Files,
    pub(super) setup: BatchesSetup,
    pub(super) records: Vec<Record>,
    /// Held as long as they are used.
    pub(super) lock: File,
}

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It can't be read or written.
    #[error("{}: files and batches can't be kept there: {source}; set `state_folder` to a folder that can be written", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another server uses it.
    #[error("{}: another server keeps its files and batches there; set `state_folder` to another folder", .0.display())]
    InUse(PathBuf),
}

impl Storage {
    /// What is in the folder, which is made if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// [`StorageError`], if it can't be used.
    pub fn open(folder: PathBuf, files: FilesSetup, setup: BatchesSetup) -> Result<Self, StorageError> {
        let wrong = |source| StorageError::Io {
            path: folder.clone(),
            source,
        };
        let lock = lock(&folder).map_err(wrong)?;
        let lock = lock.ok_or_else(|| StorageError::InUse(folder.clone()))?;
        let files = Files::open(folder.join("files"), files).map_err(wrong)?;
        let records = read_records(&folder.join("batches")).map_err(wrong)?;
        Ok(Self {
            files,
            setup,
            records,
            lock,
            folder: folder.join("batches"),
        })
    }
}

/// `None` if another server has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    // What callers upload is not for every user of the machine.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The records, and nothing else: what belongs to no batch that still runs is deleted.
fn read_records(folder: &Path) -> io::Result<Vec<Record>> {
    fs::create_dir_all(folder)?;
    let mut records: Vec<Record> = Vec::new();
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            match fs::read(&path).and_then(|json| Ok(serde_json::from_slice(&json)?)) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "the record of a batch can't be read");
                }
            }
        } else {
            others.push(path);
        }
    }
    for path in others {
        let id = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let is_needed = records
            .iter()
            .any(|record| record.id == id && !record.has_ended());
        let is_unread =
            folder.join(format!("{id}.json")).exists() && !records.iter().any(|record| record.id == id);
        if !is_needed && !is_unread {
            disk::remove(&path)?;
        }
    }
    Ok(records)
}
