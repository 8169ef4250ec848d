use std::time::Duration;

use llm_engine_batch::{End, Most, Order, Settings, Usage};
use tokio::time::Instant;

use crate::harness::{Folder, Server, assert_each_once};

#[tokio::test(start_paused = true)]
async fn no_more_is_spent_than_allowed_and_nearly_all_of_it() {
    // Each answer takes 5 tokens; 9 are reserved for it.
    let folder = Folder::with_rows(100);
    let server = Server {
        bound: Usage {
            input_tokens: 4,
            output_tokens: 5,
            nano_usd: 200,
        },
        ..Server::answering()
    };
    let most = |tokens, nano_usd| Settings {
        most: Most { tokens, nano_usd },
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &most(Some(52), None)).await.unwrap();
    assert_eq!((end, tally.usage.tokens()), (End::MostReached, 45));
    let (end, tally) = folder.go_on_as(&server, &most(None, Some(2000))).await.unwrap();
    assert_eq!((end, tally.usage.nano_usd), (End::MostReached, 1900));
    let (end, _) = folder.go_on(&server).await;
    assert_eq!(end, End::Complete);
    assert_each_once(&folder.rows(Order::Completion), 100);
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_run_ends() {
    let folder = Folder::with_rows(100);
    let server = Server::answering();
    let settings = Settings {
        concurrency: 1,
        deadline: Some(Instant::now() + Duration::from_millis(1050)),
        ..Settings::default()
    };
    let (end, tally) = folder.go_on_as(&server, &settings).await.unwrap();
    assert_eq!((end, tally.ended), (End::Deadline, 10));
    assert_eq!(
        server.seen.lock().unwrap().at_once,
        0,
        "what was on its way is cancelled"
    );
}
