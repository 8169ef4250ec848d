//! What the model is asked to do is done, or refused with the reason.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::client::{Answer, ENDLESS, Frames, STREAM, SYNC, finished, prompt};
use crate::server::{Server, Turn, model};

#[tokio::test]
async fn the_likeliest_tokens_are_the_same_each_time_whole_and_as_a_stream() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", ""));
    let body = prompt("The capital of France is", 24);
    let text = server.complete(&body).await.text();
    assert_eq!(server.complete(&body).await.text(), text);
    let frames = server.stream(&body).await.rest().await;
    let streamed: String = frames
        .iter()
        .map(|frame| frame.output.as_ref().unwrap().text.as_str())
        .collect();
    assert_eq!(streamed, text);
    assert!((1..=24).contains(&finished(&frames)));
}

#[tokio::test]
async fn a_form_that_can_t_be_kept_is_refused_and_not_ignored() {
    let turn = Turn::take();
    let sections = format!(
        "{}{}",
        model("m", ""),
        model("chat", "chat_template_for_prompts = true")
    );
    let server = Server::start(&turn, &sections);
    for (field, value) in [
        ("guided_regex", json!("[0-9]+")),
        ("guided_choice", json!(["yes", "no"])),
        ("guided_json", json!({ "type": "object" })),
        ("guided_grammar", json!("root ::= \"a\"")),
        ("return_token_log_probs", json!(true)),
        ("skip_special_tokens", json!(false)),
    ] {
        for target in [SYNC, STREAM, &SYNC.replace("=m", "=chat")] {
            let mut body = prompt("Hello", 5);
            body[field] = value.clone();
            let answer = Answer::read(server.post(target, &body).await).await;
            assert_eq!(
                answer.status,
                StatusCode::BAD_REQUEST,
                "{field} on {target}: {answer:?}"
            );
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("not supported"), "{field} on {target}: {detail}");
        }
    }
    server.complete(&prompt("Hello", 5)).await.text();
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_with_the_numbers_and_harms_nobody() {
    let turn = Turn::take();
    let server = Server::start(&turn, &model("m", "context_tokens = 256"));
    let worker = server.worker("m");
    let mut running = server.stream(&prompt(ENDLESS, 150)).await;
    running.until_generated(1).await;

    let detail = async |body: &Value| {
        let answer = server.complete(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["error"]["code"], "context_length_exceeded");
        answer["detail"].as_str().unwrap().to_owned()
    };
    // Each "a" is a token.
    let too_long = detail(&prompt(&"a ".repeat(300), 5)).await;
    assert!(
        too_long.contains("256 tokens") && too_long.contains("the prompt has"),
        "{too_long}"
    );
    let too_much = detail(&prompt("Hello", 256)).await;
    assert!(
        too_much.contains("the answer may have 256") && too_much.contains("256 tokens"),
        "{too_much}"
    );
    let far_too_long = detail(&prompt(&"a ".repeat(1_000_000), 5)).await;
    assert!(far_too_long.contains("256 tokens"), "{far_too_long}");

    assert_eq!(finished(&running.rest().await), 150);
    // Prompt and answer fit exactly.
    let count = server.complete(&prompt("Hello", 1)).await.json()["output"]["num_prompt_tokens"]
        .as_u64()
        .unwrap();
    let exact = Frames::of(server.post(STREAM, &prompt("Hello", 256 - count)).await);
    assert!(finished(&exact.rest().await) <= 256 - count);
    assert_eq!(
        server.worker("m").process,
        worker.process,
        "the same process all along"
    );
}
