use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Where log lines go: to standard error, each at once, or, while they are gathered, many together by a thread of their own. A
/// request then waits for no disk, and a hundred of them cost one call of the system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

/// While this lives, lines are gathered. When it is dropped, all that were gathered have been written.
#[derive(Debug)]
pub(crate) struct Gathering {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    /// There are lines, or there will be no more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Gathered {
    text: Vec<u8>,
    /// Lines that came while there was no room.
    lost: u64,
    is_open: bool,
    /// Whether the writer waits to be told that there is something.
    writer_sleeps: bool,
}

/// How long lines are gathered before they are written: what is lost if the process is killed.
const GATHER: Duration = Duration::from_millis(5);
/// How much may be unwritten when the disk, or whoever reads the log, is slower than requests come. What is more is lost, and
/// counted in the log.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// The memory that is kept for the next lines.
const KEPT_BYTES: usize = 256 * 1024;

impl Lines {
    /// Begins to gather.
    ///
    /// # Errors
    /// What the system says if it has no thread for it.
    pub(crate) fn gather(&self) -> io::Result<Gathering> {
        self.gather_for(io::stderr())
    }

    fn gather_for(&self, mut output: impl Write + Send + 'static) -> io::Result<Gathering> {
        let lines = self.clone();
        let writer = thread::Builder::new().name("log".to_owned());
        let mut gathered = self.gathered();
        let writer = writer.spawn(move || lines.write_gathered(&mut output))?;
        gathered.is_open = true;
        drop(gathered);
        Ok(Gathering {
            lines: self.clone(),
            writer: Some(writer),
        })
    }

    /// Writes what is gathered, until that is over.
    fn write_gathered(&self, output: &mut impl Write) {
        let mut text = Vec::new();
        loop {
            let (lost, is_open) = self.wait(&mut text);
            if lost > 0 {
                // As in every line for machines; people can read it too.
                let message = "log lines were lost: they came faster than they could be written";
                let _ = writeln!(text, r#"{{"level":"WARN","message":"{message}","lines":{lost}}}"#);
            }
            // Nobody could be told that even the log can't be written.
            let _ = output.write_all(&text);
            text.clear();
            text.shrink_to(KEPT_BYTES);
            if !is_open {
                return;
            }
        }
    }

    /// Waits for lines, then a little for more of them; takes them in exchange for an empty text. Says how many were lost, and
    /// whether there may be more.
    fn wait(&self, text: &mut Vec<u8>) -> (u64, bool) {
        let mut gathered = self.gathered();
        while gathered.is_open && gathered.text.is_empty() {
            gathered.writer_sleeps = true;
            gathered = self
                .0
                .changed
                .wait(gathered)
                .unwrap_or_else(PoisonError::into_inner);
        }
        gathered.writer_sleeps = false;
        let more = self
            .0
            .changed
            .wait_timeout_while(gathered, GATHER, |gathered| gathered.is_open);
        let (mut gathered, _) = more.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut gathered.text, text);
        (take(&mut gathered.lost), gathered.is_open)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Lines {
    /// Whole lines only.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut gathered = self.gathered();
        if !gathered.is_open {
            drop(gathered);
            return io::stderr().write_all(line).map(|()| line.len());
        }
        if gathered.text.len() + line.len() > MOST_BYTES {
            gathered.lost += 1;
            return Ok(line.len());
        }
        gathered.text.extend_from_slice(line);
        let wake = take(&mut gathered.writer_sleeps);
        drop(gathered);
        if wake {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.lines.gathered().is_open = false;
        self.lines.0.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Somebody who reads the log: gets what is written, and can be slow.
    struct Reader {
        written: Sender<Vec<u8>>,
        may_go_on: Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.written.send(bytes.to_vec());
            // An error is that the test no longer slows it down.
            let _ = self.may_go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gathering(lines: &Lines) -> (Gathering, Receiver<Vec<u8>>, Sender<()>) {
        let ((written, reads), (go_on, may_go_on)) = (channel(), channel());
        let gathering = lines.gather_for(Reader { written, may_go_on }).unwrap();
        (gathering, reads, go_on)
    }

    #[test]
    fn all_that_was_gathered_has_been_written_in_its_order_when_it_ends() {
        let lines = Lines::default();
        let (gathering, reads, go_on) = gathering(&lines);
        drop(go_on);
        let expected: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        for line in expected.split_inclusive('\n') {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        drop(gathering);
        let pieces: Vec<Vec<u8>> = reads.iter().collect();
        assert!(pieces.len() < 1_000, "{} writes", pieces.len());
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), expected);
    }

    #[test]
    fn what_a_slow_reader_leaves_no_room_for_is_counted_and_everything_else_is_written() {
        let lines = Lines::default();
        let (gathering, reads, go_on) = gathering(&lines);
        (&lines).write_all(b"first\n").unwrap();
        assert_eq!(reads.recv().unwrap(), b"first\n");
        // It has not come back from writing that.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fit = MOST_BYTES / line.len();
        for _ in 0..fit + 3 {
            (&lines).write_all(&line).unwrap();
        }
        drop(go_on);
        drop(gathering);
        let rest = String::from_utf8(reads.iter().flatten().collect()).unwrap();
        let (kept, lost) = rest.split_at(fit * line.len());
        assert!(kept.lines().all(|line| line.len() == 1023));
        assert!(lost.contains(r#""lines":3"#), "{lost}");
    }
}
