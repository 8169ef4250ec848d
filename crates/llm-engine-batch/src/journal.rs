//! The file that makes a run resumable: what was begun, and what came of it, in the order in which it happened.
//!
//! It is only ever appended to, by one process, and each line has a checksum. Everything that is known of a run is
//! what its valid lines say, so a kill at any moment costs at most what was on its way; the output is written from it in the end.
//!
//! A line is written as soon as there is something to say, and so survives the death of the process. It is synchronised with the
//! disk once a second, and so a power failure costs at most the answers of the last second or two.

mod known;
mod line;
mod lines;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Outcome, Survey};

use self::lines::{Lines, scan};

pub(crate) use self::known::{Known, Open};
pub(crate) use self::line::{Begun, Ended, Line};

/// The version of the lines. It goes up with whatever an older program would misread.
const VERSION: u32 = 1;

/// The journal of one run, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// How long it is, up to the last whole line.
    length: u64,
    header: Header,
    known: Known,
    /// Whether anything was written since it was synchronised last.
    is_dirty: bool,
}

/// What a run is of: the first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    version: u32,
    /// Begins the names by which servers know the rows, so that they know them again.
    batch: String,
    /// The rows.
    pub survey: Survey,
    /// What decides how they are answered. A run is only gone on with under the same settings.
    pub settings: Value,
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It can't be read or written.
    #[error("{}: {doing}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{}: another run is writing it; wait for its end, or name another output", .0.display())]
    InUse(PathBuf),
    /// The file is something else.
    #[error("{}: it is not the journal of a batch, or damaged in its first line; name another output", .0.display())]
    NoJournal(PathBuf),
    /// A newer program has written it.
    #[error("{}: a newer version of this program has begun this run; go on with that one", .0.display())]
    Newer(PathBuf),
    /// It belongs to a run of something else.
    #[error(
        "{}: it is of a run with another {what}; go on with that one, or delete the journal to begin anew",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A run without an end.
    #[error("{}: of {rows} rows {missing} have no answer; run it to its end first", path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// All rows.
        rows: u64,
        /// Those without an answer.
        missing: u64,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; make room, then run the same command again to go on"
        }
        _ => "",
    }
}

impl Journal {
    /// Opens the journal of a run that was begun, if there is one. What its last writer left half written is cut off.
    ///
    /// # Errors
    /// [`JournalError`], if it is no journal, is in use, or can't be read.
    pub fn resume(path: &Path) -> Result<Option<Self>, JournalError> {
        let wrong = |doing, source| JournalError::Io {
            path: path.to_owned(),
            doing,
            source,
        };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong("opening it", error)),
        };
        lock(&file, path)?;
        let scanned = scan(&file).map_err(|error| wrong("reading it", error))?;
        let Some(header) = scanned.header else {
            // A kill while the first line was written: nothing was sent yet.
            if scanned.is_torn_start {
                return Ok(None);
            }
            return Err(JournalError::NoJournal(path.to_owned()));
        };
        if header.version > VERSION {
            return Err(JournalError::Newer(path.to_owned()));
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: scanned.length,
            header,
            known: scanned.known,
            is_dirty: false,
        };
        journal.cut_off_rest()?;
        Ok(Some(journal))
    }

    /// Begins a run.
    ///
    /// # Errors
    /// [`JournalError`], if the file can't be written.
    pub fn begin(path: &Path, survey: Survey, settings: Value) -> Result<Self, JournalError> {
        let wrong = |source| JournalError::Io {
            path: path.to_owned(),
            doing: "creating it",
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(wrong)?;
        lock(&file, path)?;
        let before = scan(&file).map_err(wrong)?;
        if before.header.is_some() || !before.is_torn_start {
            return Err(JournalError::NoJournal(path.to_owned()));
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            header: Header {
                version: VERSION,
                batch: Uuid::new_v4().simple().to_string(),
                survey,
                settings,
            },
            known: Known::default(),
            is_dirty: false,
        };
        journal.cut_off_rest()?;
        let header = serde_json::to_string(&journal.header).map_err(|error| wrong(error.into()))?;
        journal.append(&Line::Header(header))?;
        journal.synchronise()?;
        sync_folder(path).map_err(wrong)?;
        Ok(journal)
    }

    /// That it is of this input and these settings.
    ///
    /// # Errors
    /// [`JournalError::Other`], if it is not.
    pub fn check(&self, bytes: u64, sha256: &str, settings: &Value) -> Result<(), JournalError> {
        let other = |what: String| JournalError::Other {
            path: self.path.clone(),
            what,
        };
        let survey = &self.header.survey;
        if survey.bytes != bytes || survey.sha256 != sha256 {
            return Err(other("input".to_owned()));
        }
        if self.header.settings == *settings {
            return Ok(());
        }
        let (Some(before), Some(now)) = (self.header.settings.as_object(), settings.as_object()) else {
            return Err(other("kind of settings".to_owned()));
        };
        let mut names = before.keys().chain(now.keys());
        let name = names.find(|name| before.get(*name) != now.get(*name));
        let name = name.map_or("setting", String::as_str);
        let shown = |settings: &serde_json::Map<String, Value>| {
            settings.get(name).map_or("nothing".to_owned(), Value::to_string)
        };
        Err(other(format!(
            "{name} ({} then, {} now)",
            shown(before),
            shown(now)
        )))
    }

    /// What the run is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of the rows.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// The name by which a server knows this row when it comes again. It is another one for each round, or the same answer
    /// would come again.
    pub(crate) fn key(&self, row: u64, round: u32) -> String {
        format!("{}-{row}-{round}", self.header.batch)
    }

    /// A row is about to be sent.
    pub(crate) fn row_begins(&mut self, begun: Begun) -> Result<(), JournalError> {
        self.append(&Line::Begun(begun))
    }

    /// There is nothing more to do for a row. Whatever is said of a row after that is as if it were not there.
    pub(crate) fn row_ends(&mut self, ended: Ended, outcome: &Outcome) -> Result<(), JournalError> {
        let outcome =
            serde_json::to_string(outcome).map_err(|error| self.wrong("writing it", error.into()))?;
        self.append(&Line::Ended(ended, outcome))
    }

    /// All rows that ended with an error are open again.
    ///
    /// # Errors
    /// [`JournalError`], if it can't be written.
    pub fn reopen_failed(&mut self) -> Result<(), JournalError> {
        self.append(&Line::Reopened)
    }

    /// The output is where it belongs.
    pub(crate) fn output_is_written(&mut self) -> Result<(), JournalError> {
        self.append(&Line::Written)?;
        self.synchronise()
    }

    /// Waits until the disk has everything.
    pub(crate) fn synchronise(&mut self) -> Result<(), JournalError> {
        if std::mem::take(&mut self.is_dirty) {
            self.file
                .sync_data()
                .map_err(|error| self.wrong("writing it to the disk", error))?;
        }
        Ok(())
    }

    /// A handle by which another thread can do that, if there is anything to do.
    pub(crate) fn unsynchronised(&mut self) -> Option<io::Result<File>> {
        std::mem::take(&mut self.is_dirty).then(|| self.file.try_clone())
    }

    pub(crate) fn wrong(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            doing,
            source,
        }
    }

    /// Its lines, from the beginning, with where each begins.
    pub(crate) fn lines(&self) -> io::Result<impl Iterator<Item = io::Result<(u64, Line)>>> {
        Lines::new(&self.file)
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let bytes = line.write();
        if let Err(error) = self.file.write_all(&bytes) {
            // What was written of it is no line. If it can't be cut off now, it will be when the run is gone on with.
            let _ = self.cut_off_rest();
            return Err(self.wrong("writing it", error));
        }
        self.length += bytes.len() as u64;
        self.is_dirty = true;
        self.known.learn(line);
        Ok(())
    }

    fn cut_off_rest(&mut self) -> Result<(), JournalError> {
        let cut = self.file.set_len(self.length);
        let sought = cut.and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        sought.map_err(|error| self.wrong("cutting it", error))?;
        Ok(())
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => JournalError::InUse(path.to_owned()),
        std::fs::TryLockError::Error(source) => JournalError::Io {
            path: path.to_owned(),
            doing: "locking it",
            source,
        },
    })
}

/// The names in a folder are written to the disk when the folder is.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
