use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine_batch::{
    Answer, Consequence, End, Failed, Form, Input, Journal, Order, Request, Row, RowError, RunError,
    Settings, Tally, Usage, Wish, Work, journal_of, run,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

/// What the server does with an attempt.
pub(crate) type Says = Result<Answer, Failed>;

/// How it decides about one, of which it is told the number for its row.
type Decides = dyn Fn(&Request, u32) -> Says + Send + Sync;

/// What says whether an answer will do.
type Checks = fn(&Answer) -> Result<(), String>;

/// A server that keeps answers by their key, as ours does, until it is restarted.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) takes: Duration,
    pub(crate) says: Arc<Decides>,
    pub(crate) check: Option<Checks>,
    pub(crate) bound: Usage,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The rows that were sent, in this order.
    pub(crate) sent: Vec<u64>,
    /// The keys, in the same order.
    pub(crate) keys: Vec<String>,
    /// By which sender.
    pub(crate) senders: Vec<u32>,
    /// How often each row was generated.
    pub(crate) generated: HashMap<u64, u32>,
    stored: HashSet<String>,
    pub(crate) at_once: usize,
    pub(crate) most_at_once: usize,
}

impl Seen {
    /// The answer to this was generated, whoever hears of it. Whether that is news.
    pub(crate) fn remember(&mut self, key: &str) -> bool {
        self.stored.insert(key.to_owned())
    }
}

impl Server {
    /// Answers each attempt, of which it is told the number for its row, by this.
    pub(crate) fn new(says: impl Fn(&Request, u32) -> Says + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            takes: Duration::from_millis(100),
            says: Arc::new(says),
            check: None,
            bound: Usage::default(),
        }
    }

    /// Answers everything.
    pub(crate) fn answering() -> Self {
        Self::new(|request, _| Ok(answer(&format!("to {}", request.row.id))))
    }

    pub(crate) fn sent(&self) -> Vec<u64> {
        self.seen.lock().unwrap().sent.clone()
    }

    /// It forgets what it has.
    pub(crate) fn restart(&self) {
        self.seen.lock().unwrap().stored.clear();
    }
}

/// Takes back that a row is at work, also when it is cancelled.
struct AtWork(Arc<Mutex<Seen>>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.lock().unwrap().at_once -= 1;
    }
}

impl Work for Server {
    async fn send(&self, request: Request) -> Says {
        let row = request.row.number;
        let attempt = {
            let mut seen = self.seen.lock().unwrap();
            seen.sent.push(row);
            seen.keys.push(request.key.clone());
            seen.senders.push(request.sender);
            seen.at_once += 1;
            seen.most_at_once = seen.most_at_once.max(seen.at_once);
            u32::try_from(seen.sent.iter().filter(|sent| **sent == row).count()).unwrap()
        };
        let _at_work = AtWork(self.seen.clone());
        sleep(self.takes).await;
        let said = (self.says)(&request, attempt);
        if let Ok(answer) = said {
            let mut seen = self.seen.lock().unwrap();
            let was_replayed = !seen.stored.insert(request.key);
            if !was_replayed {
                *seen.generated.entry(row).or_default() += 1;
            }
            return Ok(Answer {
                was_replayed,
                ..answer
            });
        }
        said
    }

    fn bound(&self, _: &Row) -> Usage {
        self.bound
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        self.check.map_or(Ok(()), |check| check(answer))
    }
}

pub(crate) fn answer(text: &str) -> Answer {
    Answer {
        text: Some(text.to_owned()),
        finish_reason: Some("stop".to_owned()),
        usage: Usage {
            input_tokens: 3,
            output_tokens: 2,
            nano_usd: 100,
        },
        ..Answer::default()
    }
}

pub(crate) fn failed(consequence: Consequence) -> Says {
    Err(Failed {
        error: RowError::new("failed", "it failed"),
        consequence,
        may_be_done: false,
    })
}

/// A folder with an input, and what comes of it.
pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    /// Rows `a0`, `a1`, … with a prompt each.
    pub(crate) fn with_rows(count: usize) -> Self {
        let rows = (0..count).map(|row| json!({ "id": format!("a{row}"), "prompt": "p", "model": "m" }));
        Self::with_lines(rows)
    }

    pub(crate) fn with_lines(lines: impl IntoIterator<Item = Value>) -> Self {
        let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
        Self::with_text("prompts.jsonl", &lines)
    }

    pub(crate) fn with_text(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn input(&self) -> Input {
        let csv = self.path("prompts.csv");
        let path = if csv.exists() {
            csv
        } else {
            self.path("prompts.jsonl")
        };
        Input::new(&path, llm_engine_batch::Format::of(&path))
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path("answers.jsonl")
    }

    /// The journal, begun if it was not.
    pub(crate) fn journal(&self) -> Journal {
        let path = journal_of(&self.output());
        let survey = self.input().survey().unwrap();
        match Journal::resume(&path).unwrap() {
            Some(journal) => {
                journal.check(survey.bytes, &survey.sha256, &json!({})).unwrap();
                journal
            }
            None => Journal::begin(&path, survey, json!({})).unwrap(),
        }
    }

    /// Goes on with the run, to its end.
    pub(crate) async fn go_on(&self, server: &Server) -> (End, Tally) {
        self.go_on_as(server, &Settings::default()).await.unwrap()
    }

    pub(crate) async fn go_on_as(
        &self,
        server: &Server,
        settings: &Settings,
    ) -> Result<(End, Tally), RunError> {
        let (_wish, wishes) = watch::channel(Wish::GoOn);
        self.go_on_until(server, settings, wishes).await
    }

    pub(crate) async fn go_on_until(
        &self,
        server: &Server,
        settings: &Settings,
        wishes: watch::Receiver<Wish>,
    ) -> Result<(End, Tally), RunError> {
        let mut last = Tally::default();
        let mut journal = self.journal();
        let observe = |tally: &Tally| last = tally.clone();
        let end = run(server, settings, &self.input(), &mut journal, wishes, observe).await?;
        Ok((end, last))
    }

    /// Writes the output and reads it.
    pub(crate) fn rows(&self, order: Order) -> Vec<Value> {
        self.journal()
            .write_output(&self.output(), Form::Jsonl, order)
            .unwrap();
        lines(&self.output())
    }
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The ids of these rows.
pub(crate) fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

/// That there is one row for each of `a0`, `a1`, … and no other.
pub(crate) fn assert_each_once(rows: &[Value], count: usize) {
    let mut found = ids(rows);
    found.sort_unstable();
    let mut expected: Vec<String> = (0..count).map(|row| format!("a{row}")).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
