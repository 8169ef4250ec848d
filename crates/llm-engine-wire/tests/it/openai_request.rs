use llm_engine_wire::openai::{InvalidRequest, Kind, Request, Sampling, Stop};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json::{any_fields, any_value};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "include_stop_str_in_output",
    "n",
    "best_of",
];

fn body(kind: Kind, more: &Value) -> Value {
    let mut body = match kind {
        Kind::Chat => json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }),
        Kind::Completion => json!({ "model": "m", "prompt": "p" }),
        Kind::Embedding => json!({ "model": "m", "input": "p" }),
    };
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn parse(kind: Kind, more: &Value) -> Result<Request, InvalidRequest> {
    Request::parse(kind, body(kind, more).to_string().as_bytes())
}

/// The field that is complained about.
fn complaint(kind: Kind, more: &Value) -> &'static str {
    match parse(kind, more) {
        Err(error) => {
            let param = error.param.unwrap();
            assert!(error.message.contains(param), "{error}");
            param
        }
        Ok(_) => panic!("{more} is accepted"),
    }
}

proptest! {
    #[test]
    fn no_fields_make_it_panic_and_bounds_hold(fields in any_fields(FIELDS), chat in any::<bool>()) {
        let kind = if chat { Kind::Chat } else { Kind::Completion };
        if let Ok(request) = Request::from_fields(kind, fields) {
            let sampling = &request.sampling;
            prop_assert!(sampling.temperature.is_none_or(|value| (0.0..=2.0).contains(&value)));
            prop_assert!(sampling.top_p.is_none_or(|value| value > 0.0 && value <= 1.0));
            prop_assert!(sampling.n.is_none_or(|value| (1..=128).contains(&value)));
            prop_assert!(request.max_output_tokens().is_none_or(|tokens| tokens >= 1));
            prop_assert!(request.answers() >= 1);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), value in any_value()) {
        let _ = Request::parse(Kind::Chat, &bytes);
        let _ = Request::parse(Kind::Completion, value.to_string().as_bytes());
    }
}

#[test]
fn the_fields_that_are_acted_on_are_read() {
    let request = parse(
        Kind::Chat,
        &json!({
            "stream": true, "stream_options": { "include_usage": true, "continuous_usage_stats": true }, "max_tokens": 5,
            "max_completion_tokens": 6, "temperature": 2, "top_p": 0.5, "top_k": -1, "presence_penalty": -2,
            "frequency_penalty": 2.0, "seed": -7, "stop": "a", "include_stop_str_in_output": true, "n": 128,
        }),
    )
    .unwrap();
    assert!(request.stream && request.include_usage && request.continuous_usage);
    let expected = Sampling {
        max_tokens: Some(5),
        max_completion_tokens: Some(6),
        temperature: Some(2.0),
        top_p: Some(0.5),
        top_k: Some(-1),
        presence_penalty: Some(-2.0),
        frequency_penalty: Some(2.0),
        seed: Some(-7),
        stop: Some(Stop::One("a".to_owned())),
        include_stop_str_in_output: Some(true),
        n: Some(128),
    };
    assert_eq!(request.sampling, expected);
}

#[test]
fn null_counts_as_absent() {
    let nulls: serde_json::Map<_, _> = FIELDS[3..]
        .iter()
        .map(|name| ((*name).to_owned(), Value::Null))
        .collect();
    let request = parse(Kind::Chat, &nulls.into()).unwrap();
    assert_eq!(request.sampling, Sampling::default());
    assert!(!request.stream && !request.include_usage && !request.continuous_usage);
    assert_eq!((request.max_output_tokens(), request.answers()), (None, 1));
    assert_eq!(request.field("seed"), None);
}

#[test]
fn the_ends_of_each_range_are_accepted() {
    for more in [
        json!({ "temperature": 0 }),
        json!({ "temperature": 2.0 }),
        json!({ "top_p": 1 }),
        json!({ "top_p": 0.0001 }),
        json!({ "top_k": 1 }),
        json!({ "presence_penalty": 2, "frequency_penalty": -2 }),
        json!({ "n": 1 }),
        json!({ "n": 128 }),
        json!({ "max_tokens": 1 }),
        json!({ "max_tokens": u64::MAX }),
        json!({ "stop": [] }),
        json!({ "seed": i64::MIN }),
    ] {
        for kind in [Kind::Chat, Kind::Completion] {
            assert!(parse(kind, &more).is_ok(), "{more}");
        }
    }
}

#[test]
fn what_is_outside_of_a_range_or_of_another_type_is_refused_by_name() {
    for (name, values) in [
        (
            "temperature",
            vec![json!(-0.1), json!(2.1), json!("1"), json!(true)],
        ),
        ("top_p", vec![json!(0), json!(-0.5), json!(1.01), json!([])]),
        ("top_k", vec![json!(0), json!(-2), json!(1.5), json!("x")]),
        ("presence_penalty", vec![json!(-2.1), json!(2.5), json!({})]),
        ("frequency_penalty", vec![json!(-3), json!(3)]),
        ("n", vec![json!(0), json!(129), json!(-1), json!(1.5)]),
        ("max_tokens", vec![json!(0), json!(-1), json!(1.5), json!("5")]),
        ("max_completion_tokens", vec![json!(0), json!(-5), json!(false)]),
        ("seed", vec![json!(0.5), json!("a")]),
        ("stop", vec![json!(5), json!(["a", 5]), json!({})]),
        ("include_stop_str_in_output", vec![json!("yes")]),
        ("stream", vec![json!("yes"), json!(1)]),
        ("stream_options", vec![json!([]), json!("x")]),
        ("model", vec![json!(""), json!(5), json!(null)]),
    ] {
        for value in values {
            for kind in [Kind::Chat, Kind::Completion] {
                assert_eq!(complaint(kind, &json!({ name: value })), name);
            }
        }
    }
}

#[test]
fn a_chat_needs_messages_with_roles_and_a_completion_a_prompt() {
    for messages in [
        json!(null),
        json!("hi"),
        json!([]),
        json!(["hi"]),
        json!([{ "content": "hi" }]),
        json!([{ "role": 5 }]),
        json!([["user"]]),
        json!([{ "role": "user" }, { "role": null }]),
    ] {
        assert_eq!(
            complaint(Kind::Chat, &json!({ "messages": messages })),
            "messages"
        );
    }
    let escaped = br#"{"model":"m","messages":[{"role":"us\u0065r"},{"r\u006fle":"user"}]}"#;
    assert_eq!(Request::parse(Kind::Chat, escaped).unwrap().messages, 2);
    for prompt in [json!(null), json!(5), json!({})] {
        assert_eq!(
            complaint(Kind::Completion, &json!({ "prompt": prompt })),
            "prompt"
        );
    }
    assert_eq!(
        Request::parse(Kind::Completion, br#"{"model":"m"}"#)
            .unwrap_err()
            .to_string(),
        "you must provide a 'prompt' parameter"
    );
    assert_eq!(
        Request::parse(Kind::Chat, br#"{"messages":[]}"#)
            .unwrap_err()
            .to_string(),
        "you must provide a 'model' parameter"
    );
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["", "{", "[]", "null", "\"x\"", "{}x"] {
        let error = Request::parse(Kind::Chat, body.as_bytes()).unwrap_err();
        assert_eq!(error.param, None);
        assert!(error.message.starts_with("the request body"), "{error}");
    }
}

#[test]
fn up_to_four_stop_sequences_are_openai_s_and_v1_may_have_more() {
    let stop = |count: usize| parse(Kind::Chat, &json!({ "stop": vec!["a"; count] })).unwrap();
    assert_eq!(stop(4).check_stop_count(), Ok(()));
    assert_eq!(stop(5).check_stop_count().unwrap_err().param, Some("stop"));
    assert_eq!(stop(5).sampling.stop.unwrap().sequences().len(), 5);
    assert_eq!(
        parse(Kind::Chat, &json!({ "stop": "abcdef" }))
            .unwrap()
            .check_stop_count(),
        Ok(())
    );
    assert_eq!(parse(Kind::Chat, &json!({})).unwrap().check_stop_count(), Ok(()));
}

#[test]
fn the_bound_on_the_output_is_the_newer_name_then_the_older_then_the_route_s_default() {
    let bound = |kind, more: Value| parse(kind, &more).unwrap().max_output_tokens();
    assert_eq!(bound(Kind::Chat, json!({})), None);
    assert_eq!(bound(Kind::Completion, json!({})), Some(16));
    assert_eq!(bound(Kind::Chat, json!({ "max_tokens": 7 })), Some(7));
    assert_eq!(bound(Kind::Completion, json!({ "max_tokens": 7 })), Some(7));
    assert_eq!(
        bound(Kind::Chat, json!({ "max_tokens": 7, "max_completion_tokens": 9 })),
        Some(9)
    );
    assert_eq!(
        bound(
            Kind::Chat,
            json!({ "max_tokens": 7, "max_completion_tokens": null })
        ),
        Some(7)
    );
}

#[test]
fn every_answer_that_is_generated_counts() {
    let answers = |more: Value| parse(Kind::Completion, &more).unwrap().answers();
    assert_eq!(answers(json!({})), 1);
    assert_eq!(answers(json!({ "n": 3 })), 3);
    assert_eq!(answers(json!({ "n": 2, "best_of": 5 })), 5);
    assert_eq!(answers(json!({ "n": 5, "best_of": 2 })), 5);
    assert_eq!(answers(json!({ "prompt": ["a", "b"] })), 2);
    assert_eq!(answers(json!({ "prompt": ["a", "b", "c"], "n": 4 })), 12);
    assert_eq!(
        answers(json!({ "prompt": [1, 2, 3] })),
        1,
        "one prompt of token ids"
    );
    assert_eq!(answers(json!({ "prompt": [[1, 2], [3]] })), 2);
    assert_eq!(answers(json!({ "prompt": [], "n": 2 })), 2);
    assert_eq!(
        answers(json!({ "prompt": ["a", "b"], "best_of": u64::MAX })),
        u64::MAX
    );
}

#[test]
fn an_embedding_has_an_input_and_everything_else_is_the_deployment_s() {
    let more =
        json!({ "stream": true, "max_tokens": "many", "n": 0, "encoding_format": "base64", "dimensions": 3 });
    let request = parse(Kind::Embedding, &more).unwrap();
    assert!(!request.stream);
    assert_eq!((request.max_output_tokens(), request.answers()), (Some(0), 0));
    assert_eq!(request.field("dimensions"), Some(&json!(3)));
    for input in [json!("a"), json!(["a", "b"]), json!([1, 2]), json!([[1], [2, 3]])] {
        assert!(
            parse(Kind::Embedding, &json!({ "input": input })).is_ok(),
            "{input}"
        );
    }
    for input in [json!(""), json!([]), json!(7), json!({}), Value::Null] {
        let refused = parse(Kind::Embedding, &json!({ "input": input })).unwrap_err();
        assert_eq!(refused.param, Some("input"), "{input}");
    }
}

#[test]
fn an_answer_can_be_streamed_unless_something_of_it_is_not() {
    let can = |kind: Kind, more: Value| parse(kind, &more).unwrap().can_be_streamed();
    for (kind, more) in [
        (Kind::Chat, json!({})),
        (Kind::Completion, json!({})),
        (
            Kind::Chat,
            json!({ "n": 3, "logprobs": true, "tools": [], "modalities": ["text"], "audio": null }),
        ),
        (
            Kind::Completion,
            json!({ "suffix": "s", "best_of": 1, "echo": false, "logprobs": 2, "n": 2 }),
        ),
        (
            Kind::Completion,
            json!({ "best_of": null, "use_beam_search": false, "prompt_logprobs": null }),
        ),
    ] {
        assert!(can(kind, more.clone()), "{more}");
    }
    assert!(!can(Kind::Embedding, json!({})));
    for more in [
        json!({ "best_of": 2 }),
        json!({ "best_of": "2" }),
        json!({ "echo": true }),
        json!({ "use_beam_search": true }),
        json!({ "prompt_logprobs": 0 }),
        json!({ "modalities": ["text", "audio"] }),
        json!({ "audio": { "voice": "v" } }),
        json!({ "kv_transfer_params": {} }),
    ] {
        assert!(!can(Kind::Completion, more.clone()), "{more}");
        assert!(!can(Kind::Chat, more.clone()), "{more}");
    }
}
