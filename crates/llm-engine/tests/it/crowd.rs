//! Crowds that come back when they are told to, by the real clock: how often each has to call, and how long the last one
//! waits.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, prompt};
use crate::server::{Options, Server, Turn};
use crate::upstream::{answer_at_once, deployed_model};

/// Requests on their way at the same time, and so about the number of connections.
const CONNECTIONS: usize = 64;

/// What came of a crowd.
#[derive(Debug)]
struct Crowd {
    /// For each caller, how often it called until it was admitted.
    calls: Vec<usize>,
    /// When the last of the first calls was sent.
    sent: Duration,
    /// When the last one had its answer.
    took: Duration,
}

/// Has so many callers with one key and prompts of their own call at once, and again when they were told to.
async fn crowd(size: usize, policy: &str) -> Crowd {
    let turn = Turn::take();
    let model = deployed_model(answer_at_once);
    // A line for each refusal would be half of the server's work.
    let options = Options {
        environment: &[("LLM_ENGINE_LOG", "warn")],
        ..Options::default()
    };
    let server = Server::start_with(&turn, &format!("{model}{policy}"), options);
    let connections = Semaphore::new(CONNECTIONS);
    let (server, connections) = (&server, &connections);
    let begun = Instant::now();
    let callers = (0..size).map(|number| async move {
        let body = prompt(&format!("p {number}"), 1);
        let mut sent = None;
        for calls in 1.. {
            let answer = {
                let _connection = connections.acquire().await.unwrap();
                sent.get_or_insert_with(|| begun.elapsed());
                server.complete(&body).await
            };
            if answer.status == StatusCode::OK {
                return (calls, sent.unwrap(), begun.elapsed());
            }
            sleep(refused(&answer)).await;
        }
        unreachable!("it calls until it is admitted")
    });
    let callers: Vec<(usize, Duration, Duration)> = join_all(callers).await;
    Crowd {
        calls: callers.iter().map(|(calls, ..)| *calls).collect(),
        sent: callers.iter().map(|(_, sent, _)| *sent).max().unwrap(),
        took: callers.iter().map(|(.., took)| *took).max().unwrap(),
    }
}

/// Checks a refusal, and returns when to come back.
fn refused(answer: &Answer) -> Duration {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "rate_limited", "{error}");
    assert_eq!(error["booked"], true, "{error}");
    answer.retry_after()
}

impl Crowd {
    /// Checks that everybody was admitted at the second call at the latest, and how long it took beside the best that the
    /// quota allows.
    fn check(&self, optimal: Duration, longest: f64) {
        let size = self.calls.len();
        let calls: usize = self.calls.iter().sum();
        let most = self.calls.iter().max().unwrap();
        let ratio = self.took.as_secs_f64() / optimal.as_secs_f64();
        println!(
            "{size} callers, all sent within {:?}: {calls} calls, {most} at most of one, {:?} in all, {ratio:.3} times the \
             optimum",
            self.sent, self.took
        );
        assert!(
            self.sent <= Duration::from_secs(1),
            "they did not come at once: {:?}",
            self.sent
        );
        assert!(*most <= 2, "one had to call {most} times");
        assert!(ratio <= longest, "{ratio}");
        // Faster than the quota nobody can be.
        assert!(self.took >= optimal, "{:?}", self.took);
    }
}

#[tokio::test]
async fn of_100_callers_at_once_on_10_a_second_each_is_admitted_at_its_second_call_and_no_time_is_lost() {
    let policy =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 10, window = '1s', burst = 1 }";
    let crowd = crowd(100, policy).await;
    crowd.check(Duration::from_millis(9_900), 1.05);
}

#[tokio::test]
#[ignore = "takes a minute: make soak"]
async fn of_5000_callers_at_once_on_100_a_second_each_is_admitted_at_its_second_call_and_no_time_is_lost() {
    let policy =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 100, window = '1s', burst = 100 }";
    let crowd = crowd(5_000, policy).await;
    crowd.check(Duration::from_secs(49), 1.03);
}
