//! What is to be known of an input before its first row is sent: how much it is, and that no two rows have one id.

use std::fs::File;
use std::io::{self, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Input;
use super::ids::Ids;

/// What an input is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// How many rows it has.
    pub rows: u64,
    /// How long the file is.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Why an input can't be run.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It can't be read, or its ids can't be compared.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Two rows have one id: nobody could tell their answers apart.
    #[error("rows {first} and {second} both have the id {id}; make the ids distinct, or leave them out")]
    SameId {
        /// The id.
        id: Value,
        /// The earlier of the two, from 1.
        first: u64,
        /// The later.
        second: u64,
    },
}

impl Input {
    /// Reads all of it once, in constant memory.
    ///
    /// # Errors
    /// [`SurveyError`], if it can't be read, or two rows have one id.
    pub fn survey(&self) -> Result<Survey, SurveyError> {
        let (bytes, sha256) = self.digest()?;
        let mut reader = self.read()?;
        let mut ids = Ids::default();
        let mut rows = 0;
        while let Some(number) = reader.advance()? {
            let id = reader.row().map_or_else(|bad| bad.id, |row| row.id);
            ids.add(&id, number)?;
            rows = number + 1;
        }
        if let Some((first, second)) = ids.first_twice()? {
            return Err(SurveyError::SameId {
                id: self.id_of(first)?,
                first: first + 1,
                second: second + 1,
            });
        }
        Ok(Survey { rows, bytes, sha256 })
    }

    /// The length and the SHA-256 of the file.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn digest(&self) -> io::Result<(u64, String)> {
        let mut file = File::open(&self.path)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                let digest = digest.finalize();
                let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                return Ok((bytes, hex));
            }
            digest.update(&buffer[..read]);
            bytes += read as u64;
        }
    }

    fn id_of(&self, number: u64) -> io::Result<Value> {
        let mut reader = self.read()?;
        while let Some(row) = reader.advance()? {
            if row == number {
                break;
            }
        }
        Ok(reader.row().map_or_else(|bad| bad.id, |row| row.id))
    }
}
