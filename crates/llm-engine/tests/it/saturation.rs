//! More callers than a model can take.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::time::timeout;

use crate::client::{ENDLESS, prompt};
use crate::server::{Server, Turn, model};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn of_64_callers_at_once_on_a_concurrency_of_4_each_is_answered_or_told_to_come_back() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", "concurrency = 4\nqueue_wait = '2s'"));
    let body = prompt(ENDLESS, 64);

    let answers = timeout(PATIENCE, join_all((0..64).map(|_| server.complete(&body)))).await;
    let answers = answers.expect("nobody hangs");

    let (answered, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == StatusCode::OK);
    println!("{} answered, {} refused", answered.len(), refused.len());
    assert!(answered.len() >= 4);
    assert!(
        !refused.is_empty(),
        "64 answers within 2 s are more than this model gives"
    );
    for answer in answered {
        assert_eq!(answer.json()["output"]["num_completion_tokens"], 64);
    }
    for answer in refused {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "saturated");
        assert_eq!(error["exact"], false);
        answer.retry_after();
    }
    let after = server.complete(&prompt("Hello", 1)).await;
    assert_eq!(
        after.status,
        StatusCode::OK,
        "the places are free again: {after:?}"
    );
}
