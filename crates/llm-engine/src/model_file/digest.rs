//! SHA-256 digests of files.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::error::ModelFileError;

const BUFFER_BYTES: usize = 1 << 20;

/// A SHA-256, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// Anything else.
    pub(super) fn parse(given: &str) -> Result<Self, ModelFileError> {
        let bad = || ModelFileError::BadDigest {
            given: given.to_owned(),
        };
        let digits = given.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&given[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }

    /// Reads everything that `reader` has.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn of(mut reader: impl Read) -> io::Result<Self> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut running = RunningDigest::default();
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(running.finish()),
                Ok(count) => running.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The first twelve digits: enough to tell two versions of a file apart in a folder listing.
    pub(super) fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The digest of what has been seen so far.
#[derive(Default)]
pub(super) struct RunningDigest(Sha256);

impl RunningDigest {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}
