//! `llm-engine complete` when it is told to come later.

use crate::program::run;
use crate::server::{Server, Turn};
use crate::upstream::{answer_at_once, deployed_model};

#[tokio::test]
async fn it_says_for_what_it_waits_and_then_has_the_answer() {
    let turn = Turn::take();
    let model = deployed_model(answer_at_once);
    let policy = "[[policies]]\nname = 'a-second'\nper = ['key']\nrequests = { limit = 1, window = '1s' }\n";
    let server = Server::start(&turn, &format!("{model}{policy}"));
    let complete = ["complete", "--url", &server.address, "--model", "m", "Hello"];
    let (first, second) = tokio::join!(run(&complete), run(&complete));
    assert_eq!(
        (first.code, second.code),
        (Some(0), Some(0)),
        "{first:?}, {second:?}"
    );
    assert_eq!(first.output, second.output);
    let said = format!("{}{}", first.errors, second.errors);
    let expected = "limited by policy a-second, next try in ";
    assert!(said.starts_with(expected) && said.ends_with(" s\n"), "{said:?}");

    let once = [&complete[..], &["--max-retries", "0"]].concat();
    let (first, second) = tokio::join!(run(&once), run(&once));
    let codes = [first.code, second.code];
    assert!(codes.contains(&Some(1)), "{first:?}, {second:?}");
}
