use llm_engine_wire::openai::{Kind, Request, Upstream, Usage};
use llm_engine_wire::translate::to_openai;
use llm_engine_wire::v1::{AnswerError, AnswerReader, CompletionRequest, RequestError};
use llm_engine_wire::validation::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json::any_text;

const UP: Upstream<'static> = Upstream {
    model: "up",
    max_output_tokens: None,
    stream: false,
    continuous_usage: false,
};

fn with(mut fields: Value, more: &Value) -> Value {
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    fields
}

fn parse(kind: Kind, fields: &Value) -> Request {
    Request::parse(kind, fields.to_string().as_bytes()).unwrap()
}

/// What a deployment called `up` is sent, or the field that it can't be sent.
fn sent(more: &Value) -> Result<Value, String> {
    let request = parse(
        Kind::Completion,
        &with(json!({ "model": "m", "prompt": "p" }), more),
    );
    let translated = CompletionRequest::from_openai(&request, &UP).map_err(|unsayable| unsayable.field)?;
    assert_eq!(translated.model, "up");
    let body = json!(translated);
    CompletionRequest::read(Some("up"), &Body::Json(body.clone())).expect("v1 takes what it is sent");
    Ok(body)
}

#[test]
fn a_plain_request_says_what_openai_leaves_out() {
    assert_eq!(
        sent(&json!({})),
        Ok(json!({
            "prompt": "p", "max_new_tokens": 16, "temperature": 1.0, "stop_sequences": [], "return_token_log_probs": false,
            "include_stop_str_in_output": false, "skip_special_tokens": true,
        }))
    );
}

#[test]
fn every_field_that_v1_has_is_said() {
    let more = json!({
        "max_tokens": 5, "temperature": 0.2, "stop": ["a", "b"], "presence_penalty": 0.1, "frequency_penalty": 2, "top_k": 40,
        "top_p": 0.9, "include_stop_str_in_output": true, "skip_special_tokens": false, "guided_json": { "b": 1, "a": 2 },
        "logprobs": 1, "user": "u", "stream": false, "stream_options": null,
    });
    assert_eq!(
        sent(&more),
        Ok(json!({
            "prompt": "p", "max_new_tokens": 5, "temperature": 0.2, "stop_sequences": ["a", "b"], "presence_penalty": 0.1,
            "frequency_penalty": 2.0, "top_k": 40, "top_p": 0.9, "include_stop_str_in_output": true,
            "skip_special_tokens": false, "guided_json": { "b": 1, "a": 2 }, "return_token_log_probs": true,
        }))
    );
    for (name, value) in [
        ("guided_regex", json!("[a-z]")),
        ("guided_choice", json!(["a", "b"])),
        ("guided_grammar", json!("root ::= \"a\"")),
    ] {
        assert_eq!(sent(&json!({ name: value })).unwrap()[name], value);
    }
    assert_eq!(
        sent(&json!({ "stop": "x" })).unwrap()["stop_sequences"],
        json!(["x"])
    );
    assert_eq!(sent(&json!({ "prompt": ["one"] })).unwrap()["prompt"], "one");
}

#[test]
fn greedily_there_is_nothing_to_choose_from() {
    let body = sent(&json!({ "temperature": 0, "top_k": 5, "top_p": 0.5 })).unwrap();
    assert_eq!(body["temperature"], 0.0);
    assert!(body.get("top_k").is_none() && body.get("top_p").is_none());
}

#[test]
fn the_bound_that_was_settled_on_counts() {
    let request = parse(
        Kind::Completion,
        &json!({ "model": "m", "prompt": "p", "max_tokens": 9 }),
    );
    let bounded = Upstream {
        max_output_tokens: Some(4),
        ..UP
    };
    let translated = CompletionRequest::from_openai(&request, &bounded).unwrap();
    assert_eq!(translated.max_new_tokens, 4);
}

#[test]
fn what_v1_has_no_words_for_is_named() {
    for (name, value) in [
        ("n", json!(2)),
        ("best_of", json!(2)),
        ("logit_bias", json!({ "1": 5 })),
        ("suffix", json!("s")),
        ("seed", json!(1)),
        ("echo", json!(true)),
        ("temperature", json!(1.5)),
        ("presence_penalty", json!(-0.5)),
        ("frequency_penalty", json!(-2)),
        ("logprobs", json!(2)),
        ("logprobs", json!(true)),
        ("prompt", json!(["a", "b"])),
        ("prompt", json!([1, 2])),
        ("prompt", json!([])),
        ("guided_json", json!("{}")),
        ("guided_choice", json!([1])),
        ("response_format", json!({ "type": "json_object" })),
        ("repetition_penalty", json!(1.1)),
        ("whatever", json!(0)),
    ] {
        assert_eq!(sent(&json!({ name: value })), Err(name.to_owned()), "{value}");
    }
    let both = json!({ "guided_regex": "a", "guided_choice": ["a"] });
    assert_eq!(sent(&both), Err("guided_choice".to_owned()));
    assert_eq!(sent(&json!({ "seed": 1, "n": 2 })), Err("seed".to_owned()));
}

#[test]
fn what_is_the_case_anyway_may_be_said() {
    let more = json!({
        "n": 1, "best_of": 1, "logit_bias": {}, "suffix": "", "seed": null, "echo": false, "min_p": 0, "repetition_penalty": 1.0,
        "use_beam_search": false, "ignore_eos": false, "response_format": { "type": "text" }, "whatever": null,
    });
    assert_eq!(sent(&more), sent(&json!({})));
}

#[test]
fn a_chat_and_an_embedding_can_not_be_said() {
    let field = |request: &Request| CompletionRequest::from_openai(request, &UP).unwrap_err().field;
    let chat = json!({ "model": "m", "seed": 1, "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(field(&parse(Kind::Chat, &chat)), "messages");
    assert_eq!(
        field(&parse(Kind::Embedding, &json!({ "model": "m", "input": "i" }))),
        "input"
    );
}

proptest! {
    #[test]
    fn every_request_of_v1_means_the_same_after_the_way_through_openai(
        prompt in any::<String>(),
        max_new_tokens in 1..i64::MAX,
        temperature in prop_oneof![Just(0.0), 0.0..=1.0_f64],
        stop in prop::collection::vec(any_text(), 0..7),
        penalties in (prop::option::of(0.0..=2.0_f64), prop::option::of(0.0..=2.0_f64)),
        top_k in prop::option::of(prop_oneof![Just(-1), 1..=i64::from(i32::MAX)]),
        top_p in prop::option::of(0.001..=1.0_f64),
        guided in prop::option::of(prop::sample::select(vec![
            ("guided_json", json!({ "type": "object" })), ("guided_regex", json!("a+")), ("guided_choice", json!(["a", "b"])),
            ("guided_grammar", json!("g")),
        ])),
        switches in any::<[bool; 3]>(),
    ) {
        let mut body = json!({
            "prompt": prompt, "max_new_tokens": max_new_tokens, "temperature": temperature, "stop_sequences": stop,
            "presence_penalty": penalties.0, "frequency_penalty": penalties.1, "top_k": top_k, "top_p": top_p,
            "return_token_log_probs": switches[0], "include_stop_str_in_output": switches[1], "skip_special_tokens": switches[2],
        });
        if let Some((name, value)) = guided {
            body[name] = value;
        }
        let mut request = match CompletionRequest::read(Some("up"), &Body::Json(body)) {
            Ok(request) => request,
            // Greedy, and yet top_k or top_p.
            Err(RequestError::Refused(_)) => return Ok(()),
            Err(RequestError::Invalid(problems)) => panic!("{problems:?}"),
        };
        let translated = CompletionRequest::from_openai(&to_openai(&request, false).unwrap(), &UP).unwrap();
        if request.temperature == 0.0 {
            (request.top_k, request.top_p) = (None, None);
        }
        prop_assert_eq!(translated, request);
    }
}

fn reader(max_new_tokens: u64) -> AnswerReader {
    AnswerReader::new(&CompletionRequest::new("up", "p", max_new_tokens, 0.5), 9)
}

fn whole(max_new_tokens: u64, output: &Value) -> Value {
    let body = json!({ "request_id": "r", "output": output }).to_string();
    serde_json::from_str(&reader(max_new_tokens).whole(body.as_bytes()).unwrap()).unwrap()
}

fn events(reader: &mut AnswerReader, frame: &Value) -> Value {
    json!(reader.event(frame.to_string().as_bytes()).unwrap())
}

#[test]
fn a_whole_answer_is_a_text_completion() {
    let output = json!({ "text": "ab", "num_prompt_tokens": 3, "num_completion_tokens": 2, "tokens": null });
    assert_eq!(
        whole(5, &output),
        json!({
            "id": "r", "object": "text_completion", "created": 9, "model": "up",
            "choices": [{ "index": 0, "text": "ab", "logprobs": null, "finish_reason": "stop" }], "usage": Usage::new(3, 2),
        })
    );
    assert_eq!(whole(2, &output)["choices"][0]["finish_reason"], "length");
    let uncounted =
        json!({ "text": "", "num_prompt_tokens": null, "num_completion_tokens": 2, "tokens": null });
    assert_eq!(whole(5, &uncounted).get("usage"), None);
}

#[test]
fn the_tokens_of_an_answer_are_its_log_probabilities() {
    let tokens = json!([{ "token": "ä", "log_prob": -0.5 }, { "token": " b", "log_prob": -1 }, { "token": "c", "log_prob": 0 }]);
    let output =
        json!({ "text": "ä bc", "num_prompt_tokens": 3, "num_completion_tokens": 3, "tokens": tokens });
    assert_eq!(
        whole(5, &output)["choices"][0]["logprobs"],
        json!({
            "tokens": ["ä", " b", "c"], "token_logprobs": [-0.5, -1.0, 0.0], "top_logprobs": null, "text_offset": [0, 1, 3],
        })
    );
}

#[test]
fn a_stream_ends_with_the_reason_and_then_the_usage() {
    let frame = |text: &str, generated: u64, prompt: Option<u64>| {
        let token = json!({ "token": text, "log_prob": -0.5 });
        json!({
            "request_id": "r", "error": null,
            "output": {
                "text": text, "finished": prompt.is_some(), "num_prompt_tokens": prompt, "num_completion_tokens": generated,
                "token": token,
            },
        })
    };
    let chunk = |choices: Value| json!({ "id": "r", "object": "text_completion", "created": 9, "model": "up", "choices": choices });
    let choice = |text: &str, offset: usize, finish_reason: Option<&str>| {
        json!([{
            "index": 0, "text": text, "finish_reason": finish_reason,
            "logprobs": {
                "tokens": [text], "token_logprobs": [-0.5], "top_logprobs": null, "text_offset": [offset],
            },
        }])
    };
    let mut usage = chunk(json!([]));
    usage["usage"] = json!(Usage::new(3, 2));
    for (most, reason) in [(5, "stop"), (2, "length")] {
        let mut reader = reader(most);
        assert_eq!(
            events(&mut reader, &frame("ä", 1, None)),
            json!([chunk(choice("ä", 0, None))])
        );
        assert_eq!(
            events(&mut reader, &frame("b", 2, Some(3))),
            json!([chunk(choice("b", 1, Some(reason))), usage])
        );
    }
}

#[test]
fn a_frame_may_leave_out_what_it_does_not_know() {
    let mut reader = reader(5);
    let chunks = events(
        &mut reader,
        &json!({ "output": { "text": "a", "finished": true } }),
    );
    assert_eq!(chunks.as_array().unwrap().len(), 1);
    assert_eq!(chunks[0]["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        events(
            &mut reader,
            &json!({ "request_id": "r", "output": null, "error": null })
        ),
        json!([])
    );
}

#[test]
fn an_error_in_a_stream_says_what_it_would_have_been() {
    for (error, status, message) in [
        (
            json!({ "status_code": 429, "content": { "error": "e", "timestamp": "t" } }),
            Some(429),
            "e",
        ),
        (
            json!({ "status_code": 500, "content": "down" }),
            Some(500),
            "down",
        ),
        (
            json!({ "status_code": 70_000, "content": { "error": { "message": "m" } } }),
            None,
            "m",
        ),
        (json!("plain"), None, "plain"),
        (json!({}), None, "its stream ends with an error"),
    ] {
        let frame = json!({ "request_id": "r", "output": null, "error": error }).to_string();
        match reader(5).event(frame.as_bytes()) {
            Err(AnswerError::Said {
                status: said,
                message: words,
            }) => {
                assert_eq!((said, words.as_str()), (status, message));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    for nonsense in [
        "",
        "[DONE]",
        "[]",
        r#"{"request_id":"r","output":5}"#,
        r#"{"output":{"text":"a"}}"#,
    ] {
        assert!(
            matches!(reader(5).event(nonsense.as_bytes()), Err(AnswerError::Json(_))),
            "{nonsense}"
        );
        assert!(
            matches!(reader(5).whole(nonsense.as_bytes()), Err(AnswerError::Json(_))),
            "{nonsense}"
        );
    }
}
