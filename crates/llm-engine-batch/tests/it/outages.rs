//! A server that is down is no row's fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use llm_engine_batch::{Consequence, End, Order, Settings};
use tokio::time::Instant;

use crate::harness::{Folder, Server, answer, assert_each_once, failed};

#[tokio::test(start_paused = true)]
async fn an_outage_of_minutes_uses_up_nobodys_attempts_and_is_not_stormed() {
    let began = Instant::now();
    let folder = Folder::with_rows(300);
    let server = Server::new(move |_, _| {
        let now = began.elapsed().as_secs();
        if (1..600).contains(&now) {
            failed(Consequence::TryAgain)
        } else {
            Ok(answer("a"))
        }
    });
    let server = Server {
        takes: Duration::from_millis(900),
        ..server
    };
    let settings = Settings {
        concurrency: 100,
        max_attempts: 2,
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.failed), (End::Complete, 0));
    assert_each_once(&folder.rows(Order::Completion), 300);
    // Those on their way when it began, and then one every half minute at most.
    let sent = server.sent().len();
    assert!(sent <= 300 + 100 + 60, "{sent} were sent");
    assert!(
        began.elapsed() <= Duration::from_secs(640),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_ends_the_run_and_no_row() {
    let folder = Folder::with_rows(10);
    let server = Server::new(|_, _| failed(Consequence::TryAgain));
    let (end, tally) = folder.go_on(&server).await;
    assert!(matches!(end, End::Outage(error) if error.message == "it failed"));
    assert_eq!(tally.ended, 0);

    let server = Server::answering();
    assert_eq!(folder.go_on(&server).await.0, End::Complete);
    assert_each_once(&folder.rows(Order::Completion), 10);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_fails_while_others_are_answered_has_so_many_attempts() {
    let folder = Folder::with_rows(50);
    let server = Server::new(|request, _| match request.row.number {
        7 => failed(Consequence::TryAgain),
        _ => Ok(answer("a")),
    });
    let settings = Settings {
        concurrency: 2,
        max_attempts: 3,
        ..Settings::default()
    };
    let server = Server {
        takes: Duration::from_secs(1),
        ..server
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.failed), (End::Complete, 1));
    let attempts = server.sent().into_iter().filter(|row| *row == 7).count();
    assert_eq!(attempts, 3);
    let rows = folder.rows(Order::Input);
    assert_eq!(rows[7]["error"]["code"], "failed");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_accepted_ends_the_run_at_once() {
    let folder = Folder::with_rows(1000);
    let server = Server::new(|_, _| failed(Consequence::EndRun));
    let (end, tally) = folder.go_on(&server).await;
    assert!(matches!(end, End::Hopeless(_)));
    assert_eq!(tally.ended, 0);
    assert!(server.sent().len() <= 256);
}

#[tokio::test(start_paused = true)]
async fn one_model_that_is_down_does_not_keep_those_of_another() {
    let lines = (0..100).map(|row| {
        let model = if row % 2 == 0 { "up" } else { "down" };
        serde_json::json!({ "id": format!("a{row}"), "prompt": "p", "model": model })
    });
    let folder = Folder::with_lines(lines);
    let answered = Arc::new(AtomicU32::new(0));
    let (count, began) = (answered.clone(), Instant::now());
    let server = Server::new(move |request, _| {
        if request.row.model() == "down" && began.elapsed() < Duration::from_secs(100) {
            return failed(Consequence::TryAgain);
        }
        if began.elapsed() < Duration::from_secs(100) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer("a"))
    });
    let settings = Settings {
        concurrency: 10,
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.failed), (End::Complete, 0));
    assert_eq!(answered.load(Ordering::Relaxed), 50);
    assert_each_once(&folder.rows(Order::Completion), 100);
}
