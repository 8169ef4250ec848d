use std::collections::HashSet;
use std::time::Duration;

use llm_engine_batch::{Consequence, End, Order, Settings, Wish};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::harness::{Folder, Server, answer, assert_each_once, failed};

#[tokio::test(start_paused = true)]
async fn no_more_rows_are_on_their_way_than_allowed() {
    let folder = Folder::with_rows(50);
    let server = Server::answering();
    let settings = Settings {
        concurrency: 7,
        ..Settings::default()
    };
    let began = Instant::now();
    folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!(server.seen.lock().unwrap().most_at_once, 7);
    // Eight times seven, a tenth of a second each.
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn several_senders_share_the_rows() {
    let folder = Folder::with_rows(40);
    let server = Server::answering();
    let settings = Settings {
        concurrency: 4,
        senders: 2,
        ..Settings::default()
    };
    folder.go_on_as(&server, &settings).await.unwrap();
    let senders = server.seen.lock().unwrap().senders.clone();
    assert_eq!(senders.iter().filter(|sender| **sender == 0).count(), 20);
    assert_each_once(&folder.rows(Order::Completion), 40);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_will_not_do_is_asked_for_again_under_another_name() {
    let folder = Folder::with_rows(3);
    let server = Server::new(|request, attempt| match (request.row.number, attempt) {
        (1, 1 | 2) | (2, _) => Ok(answer("nonsense")),
        _ => Ok(answer("sense")),
    });
    let server = Server {
        check: Some(|answer| match answer.text.as_deref() {
            Some("sense") => Ok(()),
            _ => Err("no sense in it".to_owned()),
        }),
        ..server
    };
    let settings = Settings {
        max_attempts: 4,
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.failed), (End::Complete, 1));
    // 1 + 3 + 4 answers were paid for.
    assert_eq!(tally.usage.tokens(), 8 * 5);
    let keys = server.seen.lock().unwrap().keys.clone();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    let rows = folder.rows(Order::Input);
    assert_eq!(rows[1]["text"], "sense");
    assert_eq!(rows[2]["error"]["code"], "invalid_answer");
    assert_eq!(rows[2]["error"]["message"], "no sense in it");
}

#[tokio::test(start_paused = true)]
async fn rows_that_failed_can_be_opened_again_and_the_others_stay() {
    let folder = Folder::with_rows(6);
    let fails = Server::new(|request, _| match request.row.number % 2 {
        0 => failed(Consequence::EndRow),
        _ => Ok(answer("first")),
    });
    assert_eq!(folder.go_on(&fails).await.1.failed, 3);
    folder.rows(Order::Completion);

    folder.journal().reopen_failed().unwrap();
    let server = Server::new(|request, _| match request.row.number {
        0 => failed(Consequence::EndRow),
        _ => Ok(answer("second")),
    });
    let (end, tally) = folder.go_on(&server).await;
    assert_eq!((end, tally.ended, tally.failed), (End::Complete, 6, 1));
    assert_eq!(server.sent(), [0, 2, 4]);
    let before = fails.seen.lock().unwrap().keys.clone();
    assert!(
        server
            .seen
            .lock()
            .unwrap()
            .keys
            .iter()
            .all(|key| !before.contains(key))
    );
    for order in [Order::Completion, Order::Input] {
        let rows = folder.rows(order);
        assert_each_once(&rows, 6);
        let texts = |text: &str| rows.iter().filter(|row| row["text"] == text).count();
        assert_eq!((texts("first"), texts("second")), (3, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn told_to_finish_it_sends_no_other_row_and_loses_none_on_its_way() {
    let folder = Folder::with_rows(100);
    let server = Server::answering();
    let settings = Settings {
        concurrency: 5,
        ..Settings::default()
    };
    let (wish, wishes) = watch::channel(Wish::GoOn);
    let run = folder.go_on_until(&server, &settings, wishes);
    let interrupt = async {
        sleep(Duration::from_millis(250)).await;
        wish.send(Wish::Finish).unwrap();
    };
    let (ended, ()) = tokio::join!(run, interrupt);
    let (end, tally) = ended.unwrap();
    assert_eq!((end, tally.ended), (End::Stopped, 15));

    let (end, tally) = folder.go_on(&server).await;
    assert_eq!((end, tally.ended, tally.resent), (End::Complete, 100, 0));
    assert!(
        server
            .seen
            .lock()
            .unwrap()
            .generated
            .values()
            .all(|times| *times == 1)
    );
    assert_each_once(&folder.rows(Order::Completion), 100);
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_evenly_spread_and_not_paid_for_again() {
    let folder = Folder::with_rows(1000);
    let server = Server::answering();
    let settings = Settings {
        sample: Some(10),
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.ended), (End::Complete, 10));
    assert_eq!(server.sent(), [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
    folder.go_on(&server).await;
    assert_eq!(server.sent().len(), 1000);
}
