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

/// The text of a v1 answer, whole or as a stream.
async fn text(server: &Server, target: &str, body: &Value) -> String {
    let response = server.post(target, body).await;
    assert_eq!(response.status(), StatusCode::OK, "{body} on {target}");
    if target.contains("stream") {
        let frames = Frames::of(response).rest().await;
        let outputs = frames.iter().map(|frame| frame.output.as_ref().unwrap());
        return outputs.map(|output| output.text.as_str()).collect();
    }
    Answer::read(response).await.text()
}

fn form_models() -> String {
    let chat = model("chat", "chat_template_for_prompts = true");
    format!("{}{chat}", model("m", ""))
}

#[tokio::test]
async fn a_form_of_the_answer_is_kept_on_every_v1_route() {
    let turn = Turn::take();
    let server = Server::start(&turn, &form_models());
    let schema = json!({
        "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false,
    });
    let is_true_or_false = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        value.as_object().unwrap().len() == 1 && value["a"].is_boolean()
    };
    type Check<'a> = &'a dyn Fn(&str) -> bool;
    let forms: [(&str, Value, Check<'_>); 4] = [
        ("guided_regex", json!("[0-9]{4}"), &|text| {
            text.len() == 4 && text.parse::<u16>().is_ok()
        }),
        ("guided_choice", json!(["yes", "no"]), &|text| {
            text == "yes" || text == "no"
        }),
        ("guided_json", schema, &is_true_or_false),
        ("guided_grammar", json!("root ::= \"a\" | \"b\" root"), &|text| {
            text.trim_start_matches('b') == "a"
        }),
    ];
    for (field, value, is_right) in forms {
        for target in [SYNC, STREAM, &SYNC.replace("=m", "=chat")] {
            let mut body = prompt("Hello", 40);
            body[field] = value.clone();
            let text = text(&server, target, &body).await;
            assert!(is_right(&text), "{field} on {target}: {text}");
        }
    }
}

#[tokio::test]
async fn a_form_that_can_t_be_kept_is_refused_with_the_reason() {
    let turn = Turn::take();
    let server = Server::start(&turn, &form_models());
    for (field, value, reason) in [
        ("guided_regex", json!("(a"), "unclosed group"),
        ("guided_choice", json!([]), "at least one text"),
        (
            "guided_json",
            json!({ "not": {} }),
            "these keywords are not supported: [\"not\"]",
        ),
        ("guided_grammar", json!("root = a"), "1("),
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
            assert!(detail.contains(reason), "{field} on {target}: {detail}");
        }
    }
    server.complete(&prompt("Hello", 5)).await.text();
}

#[tokio::test]
async fn tokens_and_their_log_probabilities_are_told_whole_and_as_a_stream() {
    let turn = Turn::take();
    let server = Server::start(&turn, &form_models());
    let mut body = prompt("The capital of France is", 8);
    body["return_token_log_probs"] = json!(true);
    for model in ["=m", "=chat"] {
        let answer = Answer::read(server.post(&SYNC.replace("=m", model), &body).await).await;
        let output = answer.json()["output"].clone();
        let tokens = output["tokens"].as_array().unwrap();
        let names = tokens.iter().map(|token| token["token"].as_str().unwrap());
        assert_eq!(names.collect::<String>(), output["text"].as_str().unwrap());
        assert!(
            tokens
                .iter()
                .all(|token| token["log_prob"].as_f64().unwrap() <= 0.0),
            "{output}"
        );
        let frames = Frames::of(server.post(&STREAM.replace("=m", model), &body).await)
            .rest()
            .await;
        let streamed: Vec<Value> = frames
            .iter()
            .filter_map(|frame| frame.output.as_ref().unwrap().token.as_ref())
            .map(|token| serde_json::to_value(token).unwrap())
            .collect();
        assert_eq!(&streamed, tokens);
    }
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
