//! Server-sent events (the WHATWG HTML standard, "Server-sent events"): one `data` field per event is all that the
//! dialects here use.

use memchr::memchr;

/// What ends a line of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// OpenAI's dialect.
    Lf,
    /// LLM Engine's v1 stream.
    CrLf,
}

/// One event: `data: <data>` and an empty line. `data` must not hold a line break; JSON never does.
#[must_use]
pub fn event(data: &str, end: LineEnd) -> String {
    debug_assert!(!data.contains(['\n', '\r']), "a line break would end the field");
    match end {
        LineEnd::Lf => format!("data: {data}\n\n"),
        LineEnd::CrLf => format!("data: {data}\r\n\r\n"),
    }
}

/// The longest line that [`Decoder`] accepts, and the longest data of one event, in bytes: a bound on what a broken
/// upstream can make us hold.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// An event longer than [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT_BYTES} bytes")]
pub struct EventTooLong;

/// Finds the events in a stream that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that have arrived and are not yet part of a whole line; `start` bytes of it are already read.
    buffer: Vec<u8>,
    start: usize,
    /// How much of the buffer has been searched for a line break.
    searched: usize,
    /// The data lines of the event that is being read.
    data: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The data of the next whole event, if it has arrived. Comments and other fields are passed over.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream can't be read on after it.
    pub fn next_event(&mut self) -> Result<Option<Vec<u8>>, EventTooLong> {
        while let Some(line) = self.next_line() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_EVENT_BYTES {
                return Err(EventTooLong);
            }
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else if let Some(value) = data_field(line) {
                let value = value.to_vec();
                match &mut self.data {
                    None => self.data = Some(value),
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(&value);
                    }
                }
            }
            if self
                .data
                .as_ref()
                .is_some_and(|data| data.len() > MAX_EVENT_BYTES)
            {
                return Err(EventTooLong);
            }
        }
        let unfinished = &self.buffer[self.start..];
        if unfinished.strip_suffix(b"\r").unwrap_or(unfinished).len() > MAX_EVENT_BYTES {
            return Err(EventTooLong);
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Option<&[u8]> {
        match memchr(b'\n', &self.buffer[self.searched..]) {
            Some(offset) => {
                let end = self.searched + offset;
                let line = &self.buffer[self.start..end];
                self.start = end + 1;
                self.searched = self.start;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

/// The value of a `data` line, without the one space that may follow the colon.
fn data_field(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value {
        [] => Some(value),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}
