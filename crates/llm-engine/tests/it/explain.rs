//! `llm-engine explain`, beside a server that has something to explain.

use hyper::StatusCode;
use serde_json::Value;

use crate::client::{Answer, SYNC, prompt};
use crate::program::{Finished, run};
use crate::server::{Server, Turn};
use crate::upstream::{answer_at_once, deployed_model};

/// SHA-256 of `alice-key`, `bob-key` and `operator-key`.
const CALLERS: &str = r#"
[callers.alice]
api_key_sha256 = "72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20"
[callers.bob]
api_key_sha256 = "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98"
[callers.operator]
operator = true
api_key_sha256 = "c9736463f555cdb7d2a78cfd7aa8b8c4f09d906d78f8dab9228eda30a28c2818"
"#;

const POLICY: &str = "[[policies]]\nname = 'hour'\nper = ['key']\nrequests = { limit = 1, window = '1h' }\n";

fn start(turn: &Turn) -> Server {
    let model = deployed_model(answer_at_once);
    Server::start(turn, &format!("{model}{CALLERS}{POLICY}"))
}

/// Asks as Alice, and returns the id of the request.
async fn ask(server: &Server, expected: StatusCode) -> String {
    let answer = Answer::read(server.post_as("alice-key", SYNC, &prompt("p", 1)).await).await;
    assert_eq!(answer.status, expected, "{answer:?}");
    answer.headers["x-request-id"].to_str().unwrap().to_owned()
}

async fn explain(server: &Server, key: &str, more: &[&str]) -> Finished {
    run(&[&["explain", "--url", &server.address, "--key", key], more].concat()).await
}

#[tokio::test]
async fn a_request_is_explained_in_words_or_as_json() {
    let turn = Turn::take();
    let server = start(&turn);
    let admitted = ask(&server, StatusCode::OK).await;
    let refused = ask(&server, StatusCode::TOO_MANY_REQUESTS).await;

    let words = explain(&server, "alice-key", &[&admitted]).await;
    assert_eq!(words.code, Some(0), "{words:?}");
    let first = format!("Request {admitted} of alice for model m at ");
    assert!(words.output.starts_with(&first), "{}", words.output);
    for expected in [
        ": completed (status 200).\n",
        "Policy hour allows 1 request per hour: 1 request could be taken, 1 request (charged at last: 1 request) asked \
         for; it admits.\n",
    ] {
        assert!(
            words.output.contains(expected),
            "no {expected} in {}",
            words.output
        );
    }

    let words = explain(&server, "alice-key", &[&refused]).await;
    assert_eq!(words.code, Some(0), "{words:?}");
    for expected in [
        ": rate_limited (status 429).\n",
        "; it refuses for ",
        "The answer: ",
    ] {
        assert!(
            words.output.contains(expected),
            "no {expected} in {}",
            words.output
        );
    }

    let json = explain(&server, "alice-key", &["--json", &refused]).await;
    assert_eq!(json.code, Some(0), "{json:?}");
    let explanation: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!(explanation["request_id"], refused);
    assert_eq!(explanation["outcome"], "rate_limited");
    assert_eq!(explanation["policies"][0]["policy"], "hour");
    assert_eq!(explanation["policies"][0]["verdict"], "refuses");
    assert_eq!(explanation["explanation"], words.output);
}

#[tokio::test]
async fn who_may_not_see_a_request_is_told_the_same_as_if_there_were_none() {
    let turn = Turn::take();
    let server = start(&turn);
    let request = ask(&server, StatusCode::OK).await;
    let unknown = "2f1c0f7e-5c1b-4f0a-9c36-0d6b0a4f8a11";

    for (key, id) in [("alice-key", unknown), ("bob-key", request.as_str())] {
        let finished = explain(&server, key, &[id]).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.output, "", "{finished:?}");
        let expected = format!("error: 404 There is no request {id} of yours among the latest;");
        assert!(finished.errors.starts_with(&expected), "{}", finished.errors);
    }
    let finished = explain(&server, "operator-key", &[&request]).await;
    assert_eq!(finished.code, Some(0), "an operator sees all: {finished:?}");

    let finished = explain(&server, "no-key", &[&request]).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.errors.starts_with("error: 401 "), "{}", finished.errors);
}
