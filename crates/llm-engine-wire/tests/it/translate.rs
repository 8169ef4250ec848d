use llm_engine_wire::openai::{Chunk, Kind, Response, Upstream, Usage};
use llm_engine_wire::translate::{to_frame, to_last_frame, to_openai, to_sync_response};
use llm_engine_wire::v1::{CompletionRequest, RequestError};
use llm_engine_wire::validation::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json::any_text;

/// What a deployment called `up` is sent for this v1 request.
fn sent(more: &Value, as_chat: bool) -> Value {
    let mut body = json!({ "prompt": "p", "max_new_tokens": 5, "temperature": 0.2 });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let request = CompletionRequest::read(Some("m"), &Body::Json(body)).unwrap();
    let request = to_openai(&request, as_chat).unwrap();
    assert_eq!(request.kind, if as_chat { Kind::Chat } else { Kind::Completion });
    assert_eq!(request.model, "m");
    let upstream = Upstream {
        model: "up",
        max_output_tokens: request.max_output_tokens(),
        stream: false,
        continuous_usage: false,
    };
    serde_json::from_str(&request.upstream_body(&upstream)).unwrap()
}

#[test]
fn a_plain_request_says_only_what_was_asked() {
    assert_eq!(
        sent(&json!({}), false),
        json!({ "model": "up", "prompt": "p", "max_tokens": 5, "temperature": 0.2 })
    );
    assert_eq!(
        sent(&json!({}), true),
        json!({
            "model": "up", "messages": [{ "role": "user", "content": "p" }], "max_tokens": 5, "temperature": 0.2,
        })
    );
}

#[test]
fn every_field_has_its_place_on_both_routes() {
    let more = json!({
        "stop_sequences": ["a", "b", "c", "d", "e"], "presence_penalty": 0.5, "frequency_penalty": 2, "top_k": 40,
        "top_p": 0.9, "include_stop_str_in_output": true, "skip_special_tokens": false, "guided_json": { "type": "object" },
        "return_token_log_probs": true,
    });
    let mut expected = json!({
        "model": "up", "prompt": "p", "max_tokens": 5, "temperature": 0.2, "stop": ["a", "b", "c", "d", "e"],
        "presence_penalty": 0.5, "frequency_penalty": 2.0, "top_k": 40, "top_p": 0.9, "include_stop_str_in_output": true,
        "skip_special_tokens": false, "guided_json": { "type": "object" }, "logprobs": 1,
    });
    assert_eq!(sent(&more, false), expected);
    let fields = expected.as_object_mut().unwrap();
    fields.shift_remove("prompt");
    fields.insert("messages".to_owned(), json!([{ "role": "user", "content": "p" }]));
    fields.insert("logprobs".to_owned(), true.into());
    assert_eq!(sent(&more, true), expected);
}

#[test]
fn each_form_of_answer_is_passed_on_under_its_name() {
    for (name, value) in [
        ("guided_regex", json!("[a-z]")),
        ("guided_choice", json!(["a", "b"])),
        ("guided_grammar", json!("root ::= \"a\"")),
        ("guided_json", json!({ "b": 1, "a": 2 })),
    ] {
        assert_eq!(sent(&json!({ name: value }), true)[name], value);
    }
}

proptest! {
    #[test]
    fn every_request_that_v1_accepts_has_a_translation(
        prompt in any::<String>(),
        max_new_tokens in 1..i64::MAX,
        temperature in 0.0..=1.0_f64,
        stop in prop::collection::vec(any_text(), 0..7),
        presence in prop::option::of(0.0..=2.0_f64),
        top_k in prop::option::of(prop_oneof![Just(-1), 1..=i64::from(i32::MAX)]),
        top_p in prop::option::of(0.001..=1.0_f64),
        as_chat in any::<bool>(),
    ) {
        let body = json!({
            "prompt": prompt, "max_new_tokens": max_new_tokens, "temperature": temperature, "stop_sequences": stop,
            "presence_penalty": presence, "top_k": top_k, "top_p": top_p,
        });
        match CompletionRequest::read(Some("m"), &Body::Json(body)) {
            Ok(request) => {
                let translated = to_openai(&request, as_chat).unwrap();
                prop_assert_eq!(translated.max_output_tokens(), Some(request.max_new_tokens));
                prop_assert_eq!(translated.answers(), 1);
            }
            // Greedy, and yet top_k or top_p.
            Err(error) => prop_assert!(matches!(error, RequestError::Refused(_)), "{:?}", error),
        }
    }
}

#[test]
fn the_smallest_top_p_and_the_largest_top_k_of_v1_have_a_translation() {
    let translated = |more: Value| {
        let mut body = json!({ "prompt": "p", "max_new_tokens": 5, "temperature": 0.2 });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        to_openai(
            &CompletionRequest::read(Some("m"), &Body::Json(body)).unwrap(),
            false,
        )
        .map(|_| ())
    };
    assert_eq!(translated(json!({ "top_p": 1e-300 })), Ok(()));
    assert_eq!(translated(json!({ "top_k": 3_000_000_000_u64 })), Ok(()));
}

fn response(choice: Value) -> Response {
    serde_json::from_value(json!({
        "id": "x", "object": "o", "created": 1, "model": "up", "choices": [choice],
        "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
    }))
    .unwrap()
}

#[test]
fn the_sync_answer_takes_the_text_of_either_route() {
    let expected = json!({
        "request_id": "r",
        "output": { "text": "hi", "num_prompt_tokens": 3, "num_completion_tokens": 2, "tokens": null },
    });
    for choice in [
        json!({ "index": 0, "text": "hi" }),
        json!({ "index": 0, "message": { "role": "assistant", "content": "hi" } }),
    ] {
        let answer = to_sync_response("r", &response(choice));
        assert_eq!(serde_json::to_value(answer).unwrap(), expected);
    }
    let empty = Response::empty(Kind::Chat);
    assert_eq!(to_sync_response("r", &empty).output.text, "");
}

#[test]
fn the_sync_answer_lists_the_tokens_of_either_route() {
    let expected = json!([{ "token": "h", "log_prob": -0.5 }, { "token": "i", "log_prob": -1.0 }]);
    let chat = json!({ "content": [
        { "token": "h", "logprob": -0.5, "top_logprobs": [] }, { "token": "i", "logprob": -1.0, "bytes": null },
    ] });
    let completion = json!({ "tokens": ["h", "i"], "token_logprobs": [-0.5, -1.0], "text_offset": [0, 1] });
    for logprobs in [chat, completion] {
        let answer = to_sync_response(
            "r",
            &response(json!({ "index": 0, "text": "hi", "logprobs": logprobs })),
        );
        assert_eq!(serde_json::to_value(answer.output.tokens).unwrap(), expected);
    }
}

fn chunk(choice: Value) -> Chunk {
    serde_json::from_value(json!({ "choices": [choice] })).unwrap()
}

#[test]
fn a_frame_adds_text_and_counts_what_was_generated() {
    let expected = json!({
        "request_id": "r",
        "output": {
            "text": "a", "finished": false, "num_prompt_tokens": null, "num_completion_tokens": 4, "token": null,
        },
        "error": null,
    });
    for choice in [json!({ "text": "a" }), json!({ "delta": { "content": "a" } })] {
        assert_eq!(
            serde_json::to_value(to_frame("r", &chunk(choice), 4)).unwrap(),
            expected
        );
    }
    let nothing: Chunk = serde_json::from_value(json!({ "choices": [] })).unwrap();
    assert_eq!(to_frame("r", &nothing, 4).output.unwrap().text, "");
}

#[test]
fn a_frame_carries_the_token_where_log_probabilities_came() {
    let logprobs = json!({ "content": [{ "token": "a", "logprob": -0.25 }] });
    let frame = to_frame(
        "r",
        &chunk(json!({ "delta": { "content": "a" }, "logprobs": logprobs })),
        1,
    );
    assert_eq!(
        serde_json::to_value(frame.output.unwrap().token).unwrap(),
        json!({ "token": "a", "log_prob": -0.25 })
    );
}

#[test]
fn the_last_frame_alone_is_finished_and_counts_the_prompt() {
    assert_eq!(
        serde_json::to_value(to_last_frame("r", Usage::new(7, 2))).unwrap(),
        json!({
            "request_id": "r",
            "output": {
                "text": "", "finished": true, "num_prompt_tokens": 7, "num_completion_tokens": 2, "token": null,
            },
            "error": null,
        })
    );
}
