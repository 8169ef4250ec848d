//! A process can be killed, and a machine lose its power, at any moment. What is left of the journal then is some beginning of
//! it, perhaps with something else behind it: so every beginning is tried.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use llm_engine_batch::{
    Consequence, End, Failed, Journal, JournalError, Order, RowError, Settings, Wish, journal_of,
};
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::harness::{Folder, Server, answer, assert_each_once, ids};

const ROWS: usize = 6;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// A whole journal of [`ROWS`] rows, two at a time.
async fn whole_journal(folder: &Folder, server: &Server) -> Vec<u8> {
    let settings = Settings {
        concurrency: 2,
        ..Settings::default()
    };
    let (end, _) = folder.go_on_as(server, &settings).await.unwrap();
    assert_eq!(end, End::Complete);
    fs::read(journal_of(&folder.output())).unwrap()
}

/// The rows of which these bytes have a whole line that says that they have ended.
fn ended(journal: &[u8]) -> Vec<u64> {
    let whole = journal
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&journal[..whole]).unwrap();
    let ends = text.lines().filter_map(|line| line.get(9..)?.strip_prefix("E "));
    ends.map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn killed_at_any_byte_of_the_journal_every_row_is_answered_once_and_none_is_sent_again_that_had_ended() {
    let folder = Folder::with_rows(ROWS);
    let journal = block_on(whole_journal(&folder, &Server::answering()));
    for length in 0..=journal.len() {
        fs::write(journal_of(&folder.output()), &journal[..length]).unwrap();
        let server = Server::answering();
        let (end, tally) = block_on(folder.go_on(&server));
        assert_eq!(end, End::Complete);
        assert_each_once(&folder.rows(Order::Completion), ROWS);

        let had_ended = ended(&journal[..length]);
        let mut sent = server.sent();
        sent.sort_unstable();
        let expected: Vec<u64> = (0..ROWS as u64).filter(|row| !had_ended.contains(row)).collect();
        assert_eq!(sent, expected, "after {length} bytes");
        assert_eq!(tally.ended_now, expected.len() as u64);
        fs::remove_file(folder.output()).unwrap();
    }
}

#[test]
fn what_a_power_failure_leaves_behind_the_last_whole_line_is_cut_off() {
    let folder = Folder::with_rows(ROWS);
    let journal = block_on(whole_journal(&folder, &Server::answering()));
    let end_of_previous = |length: usize| journal[..length].iter().rposition(|byte| *byte == b'\n');
    for length in (1..journal.len()).step_by(29) {
        for junk in [
            &[0_u8; 64][..],
            b"\n\n\n",
            b"12345678 E 0 ok\n",
            &journal[length / 2..length],
        ] {
            // Pages can also be written in another order: the last line is there and the one before is not.
            let mut holed = journal[..length].to_vec();
            if let Some(at) = end_of_previous(length) {
                holed[at.saturating_sub(3)..at].fill(0);
            }
            for mut left in [journal[..length].to_vec(), holed] {
                left.extend_from_slice(junk);
                fs::write(journal_of(&folder.output()), &left).unwrap();
                match Journal::resume(&journal_of(&folder.output())) {
                    // Without its first line it is no journal, and nothing of it is touched.
                    Err(JournalError::NoJournal(_)) => {
                        assert_eq!(fs::read(journal_of(&folder.output())).unwrap(), left);
                        continue;
                    }
                    resumed => drop(resumed.unwrap()),
                }
                let (end, _) = block_on(folder.go_on(&Server::answering()));
                assert_eq!(end, End::Complete);
                assert_each_once(&folder.rows(Order::Input), ROWS);
            }
        }
    }
}

#[test]
fn killed_while_the_output_is_written_the_output_appears_whole_the_next_time() {
    let folder = Folder::with_rows(ROWS);
    block_on(whole_journal(&folder, &Server::answering()));
    let complete = fs::read(journal_of(&folder.output())).unwrap();
    folder.rows(Order::Input);
    let output = fs::read(folder.output()).unwrap();
    for length in 0..=output.len() {
        fs::remove_file(folder.output()).unwrap();
        fs::write(folder.path("answers.jsonl.partial"), &output[..length]).unwrap();
        fs::write(journal_of(&folder.output()), &complete).unwrap();
        let server = Server::answering();
        assert_eq!(block_on(folder.go_on(&server)).0, End::Complete);
        assert!(server.sent().is_empty(), "everything is known");
        assert!(!folder.output().exists(), "nothing is visible before all is");
        assert_each_once(&folder.rows(Order::Input), ROWS);
        assert!(!folder.path("answers.jsonl.partial").exists());
    }
}

#[test]
fn a_row_that_was_on_its_way_is_sent_again_under_its_name_and_what_may_be_double_is_counted() {
    block_on(async {
        let folder = Folder::with_rows(3);
        let server = Server::answering();
        killed_on_its_way(&folder, &server).await;
        let keys = server.seen.lock().unwrap().keys.clone();

        // One of them was done after all, and the server still has the answer.
        assert_eq!(keys.len(), 3);
        let first = server.seen.lock().unwrap().remember(&keys[0]);
        assert!(first);
        let (end, tally) = folder.go_on(&server).await;
        assert_eq!(end, End::Complete);
        assert_eq!(server.seen.lock().unwrap().keys[3..], keys);
        assert_eq!((tally.resent, tally.doubles), (3, 2));

        let (_, tally) = folder.go_on(&server).await;
        assert_eq!(
            (tally.resent, tally.doubles),
            (0, 2),
            "the journal knows it still"
        );
    });
}

#[test]
fn a_row_of_two_crashes_may_be_double_though_its_answer_was_stored() {
    block_on(async {
        let folder = Folder::with_rows(2);
        let server = Server::answering();
        killed_on_its_way(&folder, &server).await;
        // The server may have forgotten between the two what it had done: a stored answer is then of the second time.
        killed_on_its_way(&folder, &server).await;
        let keys = server.seen.lock().unwrap().keys.clone();
        assert_eq!(keys[..2], keys[2..]);
        server.seen.lock().unwrap().remember(&keys[0]);
        let (end, tally) = folder.go_on(&server).await;
        assert_eq!((end, tally.doubles), (End::Complete, 2));
    });
}

#[test]
fn an_answer_that_will_not_do_is_not_the_end_of_what_may_be_double() {
    block_on(async {
        let folder = Folder::with_rows(1);
        let mut server = Server::new(|_, attempt| match attempt {
            1 => Err(cut()),
            2 => Ok(answer("wrong")),
            _ => Ok(answer("right")),
        });
        server.check = Some(|answer| match answer.text.as_deref() {
            Some("right") => Ok(()),
            _ => Err("wrong".to_owned()),
        });
        let (end, tally) = folder.go_on(&server).await;
        assert_eq!((end, tally.doubles), (End::Complete, 1));
    });
}

#[test]
fn a_stored_answer_is_what_came_of_one_attempt_of_which_nothing_was_heard() {
    for (cuts, doubles) in [(0, 0), (1, 0), (2, 1)] {
        block_on(async {
            let folder = Folder::with_rows(1);
            let mut server = Server::answering();
            let seen = server.seen.clone();
            server.says = Arc::new(move |request, attempt| {
                if attempt > cuts {
                    return Ok(answer("done"));
                }
                seen.lock().unwrap().remember(&request.key);
                Err(cut())
            });
            let (end, tally) = folder.go_on(&server).await;
            assert_eq!((end, tally.doubles), (End::Complete, doubles), "{cuts} cuts");
        });
    }
}

/// What becomes of an attempt that may have been generated.
fn cut() -> Failed {
    Failed {
        error: RowError::new("connection_failed", "it was cut"),
        consequence: Consequence::TryAgain,
        may_be_done: true,
    }
}

/// A process that is killed when it has sent all rows and heard of none.
async fn killed_on_its_way(folder: &Folder, server: &Server) {
    let (wish, wishes) = watch::channel(Wish::GoOn);
    let settings = Settings::default();
    let run = folder.go_on_until(server, &settings, wishes);
    let kill = async {
        sleep(Duration::from_millis(50)).await;
        wish.send(Wish::End).unwrap();
    };
    let (ended, ()) = tokio::join!(run, kill);
    assert_eq!(ended.unwrap().0, End::Stopped);
}

#[test]
fn two_processes_can_not_run_one_batch() {
    let folder = Folder::with_rows(1);
    let _journal = folder.journal();
    let second = Journal::resume(&journal_of(&folder.output()));
    assert!(matches!(second, Err(JournalError::InUse(_))));
}

#[test]
fn a_journal_of_something_else_is_told_and_left_alone() {
    let folder = Folder::with_rows(2);
    let survey = folder.input().survey().unwrap();
    let path = journal_of(&folder.output());
    drop(Journal::begin(&path, survey.clone(), json!({ "model": "a" })).unwrap());
    let journal = Journal::resume(&path).unwrap().unwrap();
    let check = |bytes, model| journal.check(bytes, &survey.sha256, &json!({ "model": model }));
    check(survey.bytes, "a").unwrap();
    let told = check(survey.bytes, "b").unwrap_err().to_string();
    assert!(told.contains(r#"another model ("a" then, "b" now)"#), "{told}");
    let told = check(survey.bytes + 1, "a").unwrap_err().to_string();
    assert!(told.contains("another input"), "{told}");

    let other = folder.path("other.journal");
    fs::write(&other, "dear diary\n").unwrap();
    assert!(matches!(Journal::resume(&other), Err(JournalError::NoJournal(_))));
    assert_eq!(fs::read_to_string(&other).unwrap(), "dear diary\n");
}

/// What happens to a run before it is gone on with.
#[derive(Debug, Clone)]
struct Crash {
    after: Duration,
    /// How much of the end of the journal is lost with it.
    lost_bytes: usize,
    server_restarts: bool,
}

fn crash() -> impl Strategy<Value = Crash> {
    (0_u64..400, prop_oneof![Just(0), 0_usize..200], any::<bool>()).prop_map(
        |(millis, lost_bytes, server_restarts)| Crash {
            after: Duration::from_millis(millis),
            lost_bytes,
            server_restarts,
        },
    )
}

async fn crash_again_and_again(crashes: &[Crash], rows: usize, order: Order) {
    let folder = Folder::with_rows(rows);
    // Every third row fails at first, and one for good.
    let server = Server::new(|request, attempt| match request.row.number {
        4 => crate::harness::failed(llm_engine_batch::Consequence::EndRow),
        row if row % 3 == 0 && attempt == 1 => {
            crate::harness::failed(llm_engine_batch::Consequence::TryAgain)
        }
        _ => Ok(answer("a")),
    });
    let settings = Settings {
        concurrency: 4,
        ..Settings::default()
    };
    for crash in crashes {
        let (wish, wishes) = watch::channel(Wish::GoOn);
        let run = folder.go_on_until(&server, &settings, wishes);
        let kill = async {
            sleep(crash.after).await;
            // The run may have come to its end before.
            let _ = wish.send(Wish::End);
        };
        let (ended, ()) = tokio::join!(run, kill);
        ended.unwrap();
        let path = journal_of(&folder.output());
        let journal = fs::read(&path).unwrap();
        let first_line = journal.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let left = journal.len().saturating_sub(crash.lost_bytes).max(first_line);
        fs::write(&path, &journal[..left]).unwrap();
        if crash.server_restarts {
            server.restart();
        }
    }
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!(end, End::Complete);
    assert_eq!((tally.ended, tally.failed), (rows as u64, u64::from(rows > 4)));
    let answers = folder.rows(order);
    assert_each_once(&answers, rows);
    if order == Order::Input {
        let expected: Vec<String> = (0..rows).map(|row| format!("a{row}")).collect();
        assert_eq!(ids(&answers), expected);
    }
    let forgotten = crashes.iter().filter(|crash| crash.server_restarts).count();
    let seen = server.seen.lock().unwrap();
    assert!(
        seen.generated
            .values()
            .all(|times| *times as usize <= 1 + forgotten)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_crashes_come_each_row_has_one_row(
        crashes in prop::collection::vec(crash(), 0..8),
        rows in 1_usize..40,
        is_ordered: bool,
    ) {
        let order = if is_ordered { Order::Input } else { Order::Completion };
        block_on(crash_again_and_again(&crashes, rows, order));
    }
}
