use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Half of a SHA-256 of the id, and the row. Nobody finds two ids with the same half.
type Entry = (u128, u64);

/// Ids of any number of rows: what is too many for the memory is sorted into a file, piece by piece.
#[derive(Default)]
pub(super) struct Ids {
    entries: Vec<Entry>,
    /// The file, with sorted pieces of [`PIECE`] entries.
    spooled: Option<BufWriter<File>>,
    pieces: u64,
}

const PIECE: usize = 1 << 16;
const ENTRY_BYTES: usize = 24;

impl Ids {
    pub(super) fn add(&mut self, id: &Value, number: u64) -> io::Result<()> {
        let digest = Sha256::digest(id.to_string());
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        self.entries.push((u128::from_le_bytes(half), number));
        if self.entries.len() == PIECE {
            self.spool()?;
        }
        Ok(())
    }

    fn spool(&mut self) -> io::Result<()> {
        self.entries.sort_unstable();
        let file = match &mut self.spooled {
            Some(file) => file,
            None => self.spooled.insert(BufWriter::new(tempfile::tempfile()?)),
        };
        for (half, number) in self.entries.drain(..) {
            file.write_all(&half.to_le_bytes())?;
            file.write_all(&number.to_le_bytes())?;
        }
        self.pieces += 1;
        Ok(())
    }

    /// Two rows with the same id, if there are any.
    pub(super) fn first_twice(mut self) -> io::Result<Option<(u64, u64)>> {
        self.entries.sort_unstable();
        let Some(file) = self.spooled else {
            return twice(self.entries.into_iter().map(Ok)).transpose();
        };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut pieces: Vec<Sorted<'_>> = vec![Box::new(self.entries.into_iter().map(Ok))];
        let bytes = (PIECE * ENTRY_BYTES) as u64;
        for piece in 0..self.pieces {
            pieces.push(Box::new(Piece {
                file: &file,
                at: piece * bytes,
                end: (piece + 1) * bytes,
                entries: Vec::new().into_iter(),
            }));
        }
        twice(Merged::new(pieces)?).transpose()
    }
}

fn twice(sorted: impl Iterator<Item = io::Result<Entry>>) -> Option<io::Result<(u64, u64)>> {
    let mut before: Option<Entry> = None;
    for entry in sorted {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        if let Some(before) = before.filter(|before| before.0 == entry.0) {
            return Some(Ok((before.1, entry.1)));
        }
        before = Some(entry);
    }
    None
}

/// One sorted piece of the file, read a little at a time.
struct Piece<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    entries: std::vec::IntoIter<Entry>,
}

const ENTRIES_AT_ONCE: usize = 1024;

impl Piece<'_> {
    fn refill(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; ENTRIES_AT_ONCE * ENTRY_BYTES];
        self.file.read_exact_at(&mut bytes, self.at)?;
        self.at += bytes.len() as u64;
        let entries: Vec<Entry> = bytes.chunks_exact(ENTRY_BYTES).map(entry).collect();
        self.entries = entries.into_iter();
        Ok(())
    }
}

fn entry(bytes: &[u8]) -> Entry {
    let (mut half, mut number) = ([0; 16], [0; 8]);
    half.copy_from_slice(&bytes[..16]);
    number.copy_from_slice(&bytes[16..ENTRY_BYTES]);
    (u128::from_le_bytes(half), u64::from_le_bytes(number))
}

impl Iterator for Piece<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries.len() == 0
            && self.at < self.end
            && let Err(error) = self.refill()
        {
            return Some(Err(error));
        }
        self.entries.next().map(Ok)
    }
}

type Sorted<'a> = Box<dyn Iterator<Item = io::Result<Entry>> + 'a>;

/// Many sorted iterators as one.
struct Merged<'a> {
    pieces: Vec<Sorted<'a>>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(pieces: Vec<Sorted<'a>>) -> io::Result<Self> {
        let mut merged = Self {
            heads: BinaryHeap::with_capacity(pieces.len()),
            pieces,
        };
        for piece in 0..merged.pieces.len() {
            merged.refill(piece)?;
        }
        Ok(merged)
    }

    fn refill(&mut self, piece: usize) -> io::Result<()> {
        if let Some(entry) = self.pieces[piece].next() {
            self.heads.push(Reverse((entry?, piece)));
        }
        Ok(())
    }
}

impl Iterator for Merged<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((entry, piece)) = self.heads.pop()?;
        Some(self.refill(piece).map(|()| entry))
    }
}
