//! The output: written from the journal when all rows have ended, whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::bits::Bits;
use crate::journal::{Journal, JournalError, Line, sync_folder};
use crate::{Form, Outcome};

/// In which order the rows of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were done.
    Completion,
    /// As in the input.
    Input,
}

impl Journal {
    /// Whether each row has ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known().ended_rows() == self.header().survey.rows
    }

    /// Whether the output has been written since anything was changed.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.known().is_written()
    }

    /// Writes the output: it appears under its name when all of it is there, with one row for each row of the input.
    ///
    /// # Errors
    /// [`JournalError`], if rows have not ended, or a file can't be read or written.
    pub fn write_output(&mut self, path: &Path, form: Form, order: Order) -> Result<(), JournalError> {
        let rows = self.header().survey.rows;
        if !self.is_complete() {
            return Err(JournalError::Unfinished {
                path: self.path().to_owned(),
                rows,
                missing: rows - self.known().ended_rows(),
            });
        }
        let partial = with_suffix(path, ".partial");
        let written = self.write_rows(&partial, form, order).and_then(|()| {
            std::fs::rename(&partial, path)?;
            sync_folder(path)
        });
        if let Err(source) = written {
            // What is left of it is of no use, and may be what the disk is full of.
            let _ = std::fs::remove_file(&partial);
            return Err(JournalError::Io {
                path: path.to_owned(),
                doing: "writing the output",
                source,
            });
        }
        self.output_is_written()
    }

    fn write_rows(&self, path: &Path, form: Form, order: Order) -> io::Result<()> {
        let mut output = BufWriter::with_capacity(256 << 10, File::create(path)?);
        form.write_heading(&mut output)?;
        match order {
            Order::Completion => {
                self.each_as_done(|number, outcome| form.write_row(&mut output, number, outcome))?;
            }
            Order::Input => {
                self.each_as_in_input(|number, outcome| form.write_row(&mut output, number, outcome))?;
            }
        }
        output
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()
    }

    /// Every row that has ended, with its number, in the order in which they did.
    ///
    /// # Errors
    /// If the journal can't be read, or `each` fails.
    pub fn each_as_done(&self, mut each: impl FnMut(u64, &Outcome) -> io::Result<()>) -> io::Result<()> {
        self.each_place(|_, row, outcome| each(row, &read(outcome)?))
    }

    /// The same, in the order of the input. Where each is in the journal is kept in a file.
    ///
    /// # Errors
    /// If the journal can't be read, or `each` fails.
    pub fn each_as_in_input(&self, mut each: impl FnMut(u64, &Outcome) -> io::Result<()>) -> io::Result<()> {
        let folder = self
            .path()
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let places = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")))?;
        self.each_place(|at, row, outcome| {
            let mut place = [0; PLACE_BYTES];
            place[..8].copy_from_slice(&at.to_le_bytes());
            place[8..].copy_from_slice(&(outcome.len() as u64).to_le_bytes());
            places.write_all_at(&place, row * PLACE_BYTES as u64)
        })?;
        let journal = File::open(self.path())?;
        let mut outcome = Vec::new();
        for row in (0..self.header().survey.rows).filter(|row| self.known().has_ended(*row)) {
            let mut place = [0; PLACE_BYTES];
            places.read_exact_at(&mut place, row * PLACE_BYTES as u64)?;
            let (mut at, mut length) = ([0; 8], [0; 8]);
            at.copy_from_slice(&place[..8]);
            length.copy_from_slice(&place[8..]);
            outcome.resize(
                usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX),
                0,
            );
            journal.read_exact_at(&mut outcome, u64::from_le_bytes(at))?;
            each(row, &serde_json::from_slice(&outcome)?)?;
        }
        Ok(())
    }

    /// Where in the journal the outcome of each row is that has ended, and what it is.
    fn each_place(&self, mut each: impl FnMut(u64, u64, &str) -> io::Result<()>) -> io::Result<()> {
        // An error that was followed by another attempt is not what became of the row.
        let last_reopening = self.last_reopening()?;
        let mut seen = Bits::default();
        for line in self.lines()? {
            let (at, line) = line?;
            let length = line.write().len();
            let Line::Ended(ended, outcome) = line else {
                continue;
            };
            let counts = ended.is_answered || last_reopening.is_none_or(|last| at > last);
            if counts && seen.set(ended.row) {
                let at = at + (length - 1 - outcome.len()) as u64;
                each(at, ended.row, &outcome)?;
            }
        }
        Ok(())
    }

    fn last_reopening(&self) -> io::Result<Option<u64>> {
        if self.known().first_round() == 0 {
            return Ok(None);
        }
        let mut last = None;
        for line in self.lines()? {
            if let (at, Line::Reopened) = line? {
                last = Some(at);
            }
        }
        Ok(last)
    }
}

/// Where an outcome begins in the journal, and how long it is.
const PLACE_BYTES: usize = 16;

fn read(outcome: &str) -> io::Result<Outcome> {
    Ok(serde_json::from_str(outcome)?)
}

/// `answers.jsonl` and `.partial` are `answers.jsonl.partial`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where the journal of an output is, unless it is said otherwise.
#[must_use]
pub fn journal_of(output: &Path) -> PathBuf {
    with_suffix(output, ".journal")
}
