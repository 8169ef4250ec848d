mod record;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use llm_engine_gateway::{Fingerprint, Retry, Tokens};

use super::{Request, Usage};

use record::{Ended, Record, milliseconds, read};

/// The log of a server, looked through once: what is in it can be read, and in which order it has to be.
///
/// A record is written when its request ends; the simulation needs requests in the order in which they began. How far the
/// two differ, the first look tells, so that the second can sort while it reads, and holds no more records than were
/// running at a time.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// With the number of their lines.
    files: Vec<(PathBuf, usize)>,
    /// Requests.
    pub(super) records: usize,
    /// Lines that are about something else.
    pub(super) skipped: usize,
    /// When the first request began.
    pub(super) start: Option<Timestamp>,
    /// The longest time by which a request began before the end of a request that is written before it.
    disorder: SignedDuration,
}

/// Threads overtake each other between taking the time of a record and writing it; files in the wrong order differ by more.
const OVERTAKEN: SignedDuration = SignedDuration::from_secs(60);

impl Log {
    /// Looks through the files.
    pub(super) fn survey(paths: &[PathBuf]) -> Result<Self, Usage> {
        let mut log = Self::default();
        let mut latest = Timestamp::MIN;
        for path in paths {
            let mut count = 0;
            for line in lines(path)? {
                count += 1;
                let at =
                    |error: &dyn std::fmt::Display| Usage(format!("{}:{count}: {error}", path.display()));
                let line = line.map_err(|error| at(&error))?;
                let Some(Ended { end, begin, .. }) = read(&line).map_err(|error| at(&error))? else {
                    log.skipped += 1;
                    continue;
                };
                if log.records > 0 && latest.duration_since(end) > OVERTAKEN {
                    let message = format!(
                        "this record is of {end}, and one before it of {latest}; give the files of a log in the order of \
                         their time"
                    );
                    return Err(at(&message));
                }
                log.records += 1;
                latest = latest.max(end);
                log.disorder = log.disorder.max(latest.duration_since(begin));
                log.start = Some(log.start.map_or(begin, |start| start.min(begin)));
            }
            log.files.push((path.clone(), count));
        }
        Ok(log)
    }
}

fn lines(path: &Path) -> Result<Lines<BufReader<File>>, Usage> {
    let file = File::open(path).map_err(|error| Usage(format!("--log {}: {error}", path.display())))?;
    Ok(BufReader::new(file).lines())
}

/// The requests of a log in the order in which they began.
#[derive(Debug)]
pub(super) struct LogRequests<'a> {
    log: &'a Log,
    retry: Retry,
    /// The file that is being read.
    file: usize,
    line: usize,
    lines: Option<Lines<BufReader<File>>>,
    /// Read and not yet taken, the earliest first.
    waiting: BinaryHeap<Reverse<Waiting>>,
    read: u64,
    latest: Timestamp,
    /// What the latest answered request for each model used, and how long it ran.
    answered: HashMap<String, (Tokens, Duration)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    request: Request,
}

impl<'a> LogRequests<'a> {
    pub(super) fn of(log: &'a Log, retry: Retry) -> Self {
        Self {
            log,
            retry,
            file: 0,
            line: 0,
            lines: None,
            waiting: BinaryHeap::new(),
            read: 0,
            latest: Timestamp::MIN,
            answered: HashMap::new(),
        }
    }

    /// The next line that there was at the first look: the server may have written more since then.
    fn next_line(&mut self) -> Result<Option<String>, Usage> {
        while let Some((path, count)) = self.log.files.get(self.file) {
            if self.line == *count {
                (self.file, self.line, self.lines) = (self.file + 1, 0, None);
                continue;
            }
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(lines(path)?),
            };
            self.line += 1;
            return match lines.next() {
                Some(Ok(line)) => Ok(Some(line)),
                Some(Err(error)) => Err(self.at(&error)),
                None => {
                    Err(self
                        .at(&"the file was changed while it was read; it must be one that can be read twice"))
                }
            };
        }
        Ok(None)
    }

    fn at(&self, error: &dyn std::fmt::Display) -> Usage {
        let path = self
            .log
            .files
            .get(self.file)
            .map(|(path, _)| path.display().to_string());
        Usage(format!("{}:{}: {error}", path.unwrap_or_default(), self.line))
    }

    /// Reads one more line; `false`: there is none.
    fn read_more(&mut self) -> Result<bool, Usage> {
        let Some(line) = self.next_line()? else {
            return Ok(false);
        };
        if let Some(ended) = read(&line).map_err(|error| self.at(&error))? {
            self.latest = self.latest.max(ended.end);
            let request = self.request(ended);
            let number = self.read;
            self.waiting.push(Reverse(Waiting { number, request }));
            self.read += 1;
        }
        Ok(true)
    }

    fn request(&mut self, ended: Ended) -> Request {
        let Ended { record, begin, .. } = ended;
        let Record {
            caller,
            model,
            route,
            outcome,
            asked_input_tokens,
            asked_output_tokens,
            input_tokens,
            output_tokens,
            admitted_after_ms,
            duration_ms,
        } = record;
        let asked = Tokens {
            input: asked_input_tokens,
            output: asked_output_tokens,
        };
        let (used, lasts) = match admitted_after_ms {
            Some(admitted_after) => {
                let used = Tokens {
                    input: input_tokens,
                    output: output_tokens,
                };
                let lasts = milliseconds(duration_ms - admitted_after).unwrap_or_default();
                if outcome == "completed" {
                    self.answered.insert(model.clone(), (used, lasts));
                }
                (Some(used), lasts)
            }
            None if WITHOUT_A_MODEL.contains(&outcome.as_str()) => (None, Duration::ZERO),
            None => match self.answered.get(&model) {
                Some((used, lasts)) => {
                    let at_most = Tokens {
                        input: asked.input,
                        output: used.output.min(asked.output),
                    };
                    (Some(at_most), *lasts)
                }
                None => (Some(asked), Duration::ZERO),
            },
        };
        let mut hasher = DefaultHasher::new();
        (&caller, &model, asked.input, asked.output).hash(&mut hasher);
        Request {
            at: begin,
            caller,
            model,
            route,
            asked,
            used,
            lasts,
            fingerprint: Fingerprint {
                digest: hasher.finish(),
                is_unique: false,
            },
            retry: self.retry,
            attempts: ATTEMPTS,
        }
    }
}

/// How requests end for which there was no model, although the policies had nothing against them.
const WITHOUT_A_MODEL: &[&str] = &["saturated", "no_deployment", "draining"];

/// As often as the published clients try.
const ATTEMPTS: u32 = 6;

impl Iterator for LogRequests<'_> {
    type Item = Result<Request, Usage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // What is still to be read began after that, or the first look would have told otherwise.
            let is_next = |waiting: &Waiting, latest: Timestamp, disorder: SignedDuration| {
                latest.duration_since(waiting.request.at) >= disorder
            };
            if let Some(Reverse(first)) = self.waiting.peek()
                && is_next(first, self.latest, self.log.disorder)
            {
                break;
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Some(Err(error)),
            }
        }
        self.waiting.pop().map(|Reverse(first)| Ok(first.request))
    }
}

impl Waiting {
    fn order(&self) -> (Timestamp, u64) {
        (self.request.at, self.number)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests;
