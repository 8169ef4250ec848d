//! Budgets over the end of the server, asked for and not.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::client::prompt;
use crate::program::run;
use crate::server::{Server, Turn, signal};
use crate::until::until;
use crate::upstream::deployed_model;

/// A budget of a month, in output tokens.
const BUDGET: u64 = 1_000_000;
/// What is used up of it before the server ends.
const SPENT: u64 = 600_000;
/// What a kill may forget: a thousandth of the budget. In a second less than that is spent by what goes on until the kill.
const MAY_BE_FORGOTTEN: u64 = BUDGET / 1000;
const LITTLE: u64 = 4;

/// How often the journal is written, if there is something to write.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// Shortly before the next time.
const LONG_AFTER: Duration = Duration::from_millis(900);
const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration, and the folder in which its servers keep what outlives them.
struct Budget {
    sections: String,
    state: TempDir,
}

impl Budget {
    fn new() -> Self {
        // Each answer has as many tokens as it may have; who only asks whether somebody is there names no number.
        let model = deployed_model(|exchange| {
            let tokens = exchange.body["max_tokens"].as_u64().unwrap_or(0);
            let stream = exchange.stream();
            stream.text("a");
            stream.finish("length");
            stream.usage(1, tokens);
            stream.done();
        });
        let state = tempfile::tempdir().unwrap();
        let policy = format!(
            "[[policies]]\nname = 'month'\nper = ['key']\n\
             output_tokens = {{ limit = {BUDGET}, window = 'calendar-month' }}"
        );
        let sections = format!("state_folder = '{}'\n{model}{policy}", state.path().display());
        Self { sections, state }
    }

    fn serve(&self, turn: &Turn) -> Server {
        Server::start(turn, &self.sections)
    }

    /// The only file of its kind in the folder.
    fn journal(&self) -> PathBuf {
        let files = std::fs::read_dir(self.state.path()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let is_journal = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "redb");
        let files: Vec<PathBuf> = files.filter(is_journal).collect();
        let [file] = &files[..] else {
            panic!("not one file: {files:?}")
        };
        file.clone()
    }
}

async fn spend(server: &Server, tokens: u64) {
    server.complete(&prompt("p", tokens)).await.text();
}

async fn spent(server: &Server) -> u64 {
    let limits = server.limits().await;
    assert_eq!(limits[0]["limit"], BUDGET);
    BUDGET - limits[0]["remaining"].as_u64().unwrap()
}

fn written(journal: &Path) -> SystemTime {
    std::fs::metadata(journal).unwrap().modified().unwrap()
}

#[tokio::test]
async fn killed_while_it_works_a_server_forgets_at_most_the_last_second_of_a_budget() {
    let turn = Turn::take();
    let budget = Budget::new();
    let mut server = budget.serve(&turn);
    spend(&server, SPENT).await;
    // What is written a second after that answer knows of it. There is always something to write, and the worst moment is
    // long after it was.
    let answered = SystemTime::now();
    until("the journal will be written again", PATIENCE, async || {
        spend(&server, LITTLE).await;
        let written = written(&budget.journal());
        let since = written.elapsed().unwrap_or_default();
        (written >= answered + WRITTEN_EVERY && since >= LONG_AFTER).then_some(())
    })
    .await;
    let before = spent(&server).await;

    signal(server.process(), "KILL");
    server.ended(PATIENCE).await;
    let server = budget.serve(&turn);
    let kept = spent(&server).await;

    println!("{before} of {BUDGET} were spent before the kill, {kept} after it");
    assert!(kept < before, "it was killed before it could write");
    assert!(kept >= before - MAY_BE_FORGOTTEN, "{kept} of {before}");
    assert!(kept >= SPENT - MAY_BE_FORGOTTEN, "{kept}");
}

#[tokio::test]
async fn asked_to_end_a_server_forgets_nothing_of_a_budget() {
    let turn = Turn::take();
    let budget = Budget::new();
    let mut before = 0;
    for _ in 0..2 {
        let mut server = budget.serve(&turn);
        assert_eq!(spent(&server).await, before);
        // It ends at once: nothing is written because the time has come.
        spend(&server, SPENT / 2).await;
        before += SPENT / 2;
        signal(server.process(), "TERM");
        let status = server.ended(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
    let server = budget.serve(&turn);
    assert_eq!(spent(&server).await, before);
}

#[tokio::test]
async fn a_damaged_journal_is_refused_with_what_to_do_and_left_as_it_is() {
    let turn = Turn::take();
    let budget = Budget::new();
    let mut server = budget.serve(&turn);
    spend(&server, SPENT).await;
    signal(server.process(), "TERM");
    server.ended(PATIENCE).await;
    let journal = budget.journal();
    let whole = std::fs::read(&journal).unwrap();
    let half = whole.len() / 2;

    let damaged = [
        ("empty", Vec::new()),
        ("torn", whole[..half].to_vec()),
        (
            "overwritten",
            [&whole[..half], &vec![0xA5; whole.len() - half]].concat(),
        ),
        ("another file", b"state = 'none'\n".repeat(1000)),
    ];
    for (how, bytes) in damaged {
        std::fs::write(&journal, &bytes).unwrap();
        let config = server.config();
        let finished = run(&["serve", "--config", config.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(2), "{how}: {finished:?}");
        assert_eq!(finished.output, "", "{how}: nothing is announced");
        let expected = format!("error: {} is damaged (", journal.display());
        assert!(
            finished.errors.starts_with(&expected),
            "{how}: {}",
            finished.errors
        );
        assert!(
            finished
                .errors
                .contains("restore it from a backup, or move it away to start with all budgets unspent"),
            "{how}: {}",
            finished.errors
        );
        assert!(
            std::fs::read(budget.journal()).unwrap() == bytes,
            "{how}: changed"
        );
    }

    // Either of what is advised helps.
    std::fs::write(&journal, &whole).unwrap();
    assert_eq!(spent(&budget.serve(&turn)).await, SPENT);
    std::fs::rename(&journal, budget.state.path().with_extension("away")).unwrap();
    assert_eq!(spent(&budget.serve(&turn)).await, 0);
    std::fs::remove_file(budget.state.path().with_extension("away")).unwrap();
}
