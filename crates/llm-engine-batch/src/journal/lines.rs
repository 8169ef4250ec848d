use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};

use super::line::may_be_torn_header;
use super::{Header, Known, Line};

/// What is left of a journal.
pub(super) struct Scanned {
    pub(super) header: Option<Header>,
    pub(super) known: Known,
    /// How far it can be relied upon.
    pub(super) length: u64,
    /// Whether it may be what a kill left of the first line.
    pub(super) is_torn_start: bool,
}

pub(super) fn scan(file: &File) -> io::Result<Scanned> {
    let mut scanned = Scanned {
        header: None,
        known: Known::default(),
        length: 0,
        is_torn_start: false,
    };
    let mut lines = Lines::new(file)?;
    while let Some(line) = lines.next() {
        let (_, line) = line?;
        match (&line, &scanned.header) {
            (Line::Header(header), None) => scanned.header = serde_json::from_str(header).ok(),
            (_, None) => return Ok(scanned),
            _ => scanned.known.learn(&line),
        }
        scanned.length = lines.position;
    }
    if scanned.header.is_none() {
        scanned.is_torn_start = may_be_torn_header(&lines.line);
    }
    Ok(scanned)
}

/// Reads lines up to the first that is none: after a crash that is where what can be relied upon ends.
pub(super) struct Lines<'a> {
    file: BufReader<&'a File>,
    line: Vec<u8>,
    position: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(mut file: &'a File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        Ok(Self {
            file: BufReader::with_capacity(256 << 10, file),
            line: Vec::new(),
            position: 0,
        })
    }
}

impl Iterator for Lines<'_> {
    type Item = io::Result<(u64, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        match self.file.read_until(b'\n', &mut self.line) {
            Err(error) => Some(Err(error)),
            Ok(0) => None,
            Ok(read) => {
                let line = Line::read(&self.line)?;
                let began = self.position;
                self.position += read as u64;
                Some(Ok((began, line)))
            }
        }
    }
}
