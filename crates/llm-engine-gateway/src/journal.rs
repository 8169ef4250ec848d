//! Where calendar budgets and long debts outlive a restart: one small database file.

mod key;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use llm_engine_limit::{Counted, Period, Policy, Saved, SavedLevel};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use self::key::Key;
use crate::names::Names;

/// The version of what the tables hold. It goes up with whatever an older server would misread.
const FORMAT: u32 = 1;
const FORMAT_TABLE: TableDefinition<(), u32> = TableDefinition::new("format");

/// By [`Key`] as JSON.
const ENTRIES: TableDefinition<&str, Level> = TableDefinition::new("entries");

/// The calendar window, if it is a budget's; the units spent, or missing; and when that was so, in milliseconds since the
/// Unix epoch.
type Level = (Option<u32>, u64, i64);

/// Of a file that is small, and read from end to end only at the start.
const CACHE_BYTES: usize = 16 << 20;

/// How often what is over is cleared out. All of the file is read for that.
const CLEARING: SignedDuration = SignedDuration::from_hours(1);

/// The file in which levels of the limiter are kept, by names: the limiter's numbers are others after a restart. The
/// process can be killed at any moment: the file has what the last finished [`Self::store`] has written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` after a failure: a database that could not read or write refuses all else until it is opened anew.
    database: Option<Database>,
    /// What could not be written. Nobody gives it again unless the level changes.
    unwritten: HashMap<String, Level>,
    /// When it was last cleared of what is over.
    cleared: Option<Timestamp>,
}

/// The level of one bucket, as the file has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    key: String,
    level: Level,
}

/// Why levels can't be kept over a restart, or those kept can't be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system says no.
    #[error(
        "{} can't be used: {error}; state_folder must be a folder that the server can write to", .path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Two servers would overwrite each other's levels.
    #[error("{} is in use: another server uses it; give each its own state_folder", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// To go on without it would be to forget what has been spent: that is the operator's decision.
    #[error(
        "{} is damaged ({reason}); restore it from a backup, or move it away to start with all budgets unspent",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This version would misread it.
    #[error(
        "{} was written by a newer version of the server (format {format}, this one knows {FORMAT}); start that version, \
         or move the file away to start with all budgets unspent",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        format: u32,
    },
}

impl Journal {
    /// Opens the file. If there is none, creates it and its folder, private to the process's user.
    ///
    /// All of the file is read and verified. A repair after a crash is the same work.
    ///
    /// # Errors
    /// If it can't be created or opened, is in use, is damaged, or is of a newer version.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let state = State {
            database: Some(open_or_create(path)?),
            unwritten: HashMap::new(),
            cleared: None,
        };
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// What is kept for these policies and for callers, teams and models that have a number, and when each level was as
    /// it says; but for what is over by `now`.
    ///
    /// What else there is stays in the file until it is over: a name may come back. So does what was counted per something
    /// else than its policy is now.
    ///
    /// # Errors
    /// If the file can't be read, or an entry makes no sense.
    pub(crate) fn load(
        &self,
        names: &Names,
        policies: &[Policy],
        now: Timestamp,
    ) -> Result<Vec<(Saved, Timestamp)>, JournalError> {
        self.with_database(&mut self.state().database, |database| {
            let mut loaded = Vec::new();
            for entry in database.begin_read()?.open_table(ENTRIES)?.iter()? {
                let (key, level) = entry?;
                let (key, (window, units, at)) = (key.value(), level.value());
                let nonsense = || redb::Error::Corrupted(format!("no sense in its entry {key}"));
                let at = Timestamp::from_millisecond(at).map_err(|_| nonsense())?;
                let key = Key::read(key).ok_or_else(nonsense)?;
                let counted = key.counted().ok_or_else(nonsense)?;
                let policy = policies.iter().find(|policy| *policy.name == *key.policy);
                let subject = policy.and_then(|policy| key.subject(policy.per, names));
                let Some(subject) = subject else { continue };
                if is_over(counted, policy, (units, at), now) {
                    continue;
                }
                let level = match window {
                    Some(window) => SavedLevel::Spent { window, units },
                    None => SavedLevel::Missing { units },
                };
                let saved = Saved {
                    policy: key.policy.into(),
                    counted,
                    subject,
                    level,
                };
                loaded.push((saved, at));
            }
            Ok(loaded)
        })
    }

    /// What [`Self::store`] is to write of levels as of `at`. It needs names and policies, which others wait for, but
    /// nothing of the disk. What has no name is left out: its policy was taken away.
    pub(crate) fn entries(
        &self,
        saved: &[Saved],
        names: &Names,
        policies: &[Policy],
        at: Timestamp,
    ) -> Vec<Entry> {
        let entry = |saved: &Saved| {
            let policy = policies.iter().find(|policy| policy.name == saved.policy)?;
            let (window, units) = match saved.level {
                SavedLevel::Missing { units } => (None, units),
                SavedLevel::Spent { window, units } => (Some(window), units),
            };
            Some(Entry {
                key: Key::of(saved, policy.per, names)?.write(),
                level: (window, units, at.as_millisecond()),
            })
        };
        saved.iter().filter_map(entry).collect()
    }

    /// Keeps these levels, all or none of them; those at which nothing is missing or spent are deleted. Every hour clears
    /// out what is over under these policies.
    ///
    /// They are on disk when this returns ([`redb::Durability::Immediate`], the default), so it blocks for an `fsync`. A
    /// crash leaves the file as it was before or after. To open it after a crash takes no longer than at other times.
    ///
    /// # Errors
    /// If the file can't be written. The levels are remembered, and the next call writes them too, even if it is given
    /// none.
    pub(crate) fn store(&self, entries: &[Entry], policies: &[Policy]) -> Result<(), JournalError> {
        let mut state = self.state();
        let State {
            database,
            unwritten,
            cleared,
        } = &mut *state;
        if entries.is_empty() && unwritten.is_empty() {
            return Ok(());
        }
        let now = entries.first().map(|entry| entry.level.2);
        let now = now.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let clear = now.filter(|now| cleared.is_none_or(|last| now.duration_since(last) >= CLEARING));
        let stored = self.with_database(database, |database| {
            let transaction = database.begin_write()?;
            let mut table = transaction.open_table(ENTRIES)?;
            for (key, level) in unwritten.iter() {
                put(&mut table, key, *level)?;
            }
            for Entry { key, level } in entries {
                put(&mut table, key, *level)?;
            }
            if let Some(now) = clear {
                table.retain(|key, level| !can_be_cleared_out(key, level, policies, now))?;
            }
            drop(table);
            transaction.commit()?;
            Ok(())
        });
        if stored.is_ok() {
            unwritten.clear();
            *cleared = clear.or(*cleared);
        } else {
            let entries = entries.iter().cloned();
            unwritten.extend(entries.map(|Entry { key, level }| (key, level)));
        }
        stored
    }

    /// While there is work the database is taken out: after a failure, or a panic, it is opened anew.
    fn with_database<T>(
        &self,
        slot: &mut Option<Database>,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, JournalError> {
        let database = match slot.take() {
            Some(database) => database,
            None => open_existing(&self.path)?,
        };
        let done = work(&database).map_err(|error| JournalError::of(&self.path, error))?;
        *slot = Some(database);
        Ok(done)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(table: &mut Table<&str, Level>, key: &str, level: Level) -> Result<(), redb::Error> {
    let (_, units, _) = level;
    if units == 0 {
        table.remove(key)?;
    } else {
        table.insert(key, level)?;
    }
    Ok(())
}

impl JournalError {
    fn of(path: &Path, error: impl Into<redb::Error>) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        use redb::Error::{
            Corrupted, DatabaseAlreadyOpen, Io, LockProtocolMismatch, TableDoesNotExist, TableIsMultimap,
            TableTypeMismatch, TypeDefinitionChanged, UpgradeRequired,
        };

        let path = path.to_owned();
        match error.into() {
            DatabaseAlreadyOpen | LockProtocolMismatch => Self::InUse { path },
            // It doesn't begin, or ends, as the database's files do.
            Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
                let reason = error.to_string();
                Self::Damaged { path, reason }
            }
            Io(error) => Self::Io { path, error },
            Corrupted(reason) => Self::Damaged { path, reason },
            error @ (UpgradeRequired(_)
            | TableDoesNotExist(_)
            | TableIsMultimap(_)
            | TableTypeMismatch { .. }
            | TypeDefinitionChanged { .. }) => {
                let reason = error.to_string();
                Self::Damaged { path, reason }
            }
            error => {
                let error = io::Error::other(error.to_string());
                Self::Io { path, error }
            }
        }
    }

    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| {
            let path = path.to_owned();
            Self::Io { path, error }
        }
    }
}

fn open_or_create(path: &Path) -> Result<Database, JournalError> {
    let folder = match path.parent() {
        Some(folder) if folder != "" => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(JournalError::io(path))?;
    let folder = File::open(folder).map_err(JournalError::io(path))?;
    // While one server creates the file, another waits here rather than replacing it. Not every file system can do so.
    let _ = folder.lock();
    if !path.try_exists().map_err(JournalError::io(path))? {
        create(path, &folder)?;
    }
    open_existing(path)
}

/// Makes it under another name: under its own it is whole from the beginning, and an empty or torn file is a damaged one.
fn create(path: &Path, folder: &File) -> Result<(), JournalError> {
    let unfinished = path.with_added_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(JournalError::io(path)(error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(JournalError::io(path))?;
    initialise(file).map_err(|error| JournalError::of(path, error))?;
    fs::rename(&unfinished, path)
        .and_then(|()| folder.sync_all())
        .map_err(JournalError::io(path))
}

fn initialise(file: File) -> Result<(), redb::Error> {
    let database = builder().create_with_backend(FileBackend::new(file)?)?;
    let transaction = database.begin_write()?;
    transaction.open_table(FORMAT_TABLE)?.insert((), FORMAT)?;
    transaction.open_table(ENTRIES)?;
    transaction.commit()?;
    database.close()?;
    Ok(())
}

fn open_existing(path: &Path) -> Result<Database, JournalError> {
    let failed = |error| JournalError::of(path, error);
    let database = builder().open(path).map_err(|error| failed(error.into()))?;
    match format_of(&database).map_err(failed)? {
        FORMAT => Ok(database),
        format if format > FORMAT => {
            let path = path.to_owned();
            Err(JournalError::Newer { path, format })
        }
        format => Err(failed(redb::Error::Corrupted(format!(
            "there is no format {format}"
        )))),
    }
}

fn format_of(database: &Database) -> Result<u32, redb::Error> {
    let formats = database.begin_read()?.open_table(FORMAT_TABLE)?;
    let format = formats.get(())?.map(|format| format.value());
    format.ok_or_else(|| redb::Error::Corrupted("its format is not said".to_owned()))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // Without, a damaged file may be found out only in use, and by a panic.
    builder.set_check_integrity_on_open(true);
    builder
}

/// What makes no sense is not cleared out but found at the next start.
fn can_be_cleared_out(key: &str, (_, units, at): Level, policies: &[Policy], now: Timestamp) -> bool {
    let Some(key) = Key::read(key) else { return false };
    let policy = policies.iter().find(|policy| *policy.name == *key.policy);
    match (key.counted(), Timestamp::from_millisecond(at)) {
        (Some(counted), Ok(at)) => is_over(counted, policy, (units, at), now),
        _ => false,
    }
}

/// Whether so many units that were spent or missing then are certainly there again. A calendar window is at most a day
/// longer than its period, where clocks are changed or the date line is moved. What was missing of a quota has refilled, or,
/// if there is no such quota at present, serves nobody after more than a year.
fn is_over(counted: Counted, policy: Option<&Policy>, (units, at): (u64, Timestamp), now: Timestamp) -> bool {
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    let refill_time = |unit, window| {
        let mut quotas = policy?.quotas.iter();
        let (_, quota) = quotas.find(|(counts, quota)| *counts == unit && quota.window() == window)?;
        SignedDuration::try_from(quota.refill_time(units)).ok()
    };
    let lasts = match counted {
        Counted::PerPeriod { period, .. } => match period {
            Period::Day => days(1 + 1),
            Period::Week => days(7 + 1),
            Period::Month => days(31 + 1),
        },
        Counted::PerWindow { unit, window } => refill_time(unit, window).unwrap_or(days(400)),
        Counted::Concurrency => days(400),
    };
    now.duration_since(at) > lasts
}

#[cfg(test)]
mod tests;
