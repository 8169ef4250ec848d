use llm_engine_wire::openai::{Assembly, AssemblyError, Kind, Usage};
use serde_json::{Value, json};

/// The answer of these chunks, as its text.
fn text_of(kind: Kind, chunks: &[&str]) -> String {
    let mut assembly = Assembly::new(kind);
    for chunk in chunks {
        assembly.add(chunk).unwrap();
    }
    assembly.finish("public", Usage::new(7, 2))
}

fn answer(kind: Kind, chunks: &[Value]) -> Value {
    let chunks: Vec<String> = chunks.iter().map(Value::to_string).collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    serde_json::from_str(&text_of(kind, &chunks)).unwrap()
}

fn delta(delta: &Value) -> Value {
    json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 9, "model": "up",
        "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }],
    })
}

/// The message that these deltas make.
fn message(deltas: &[Value]) -> Value {
    let chunks: Vec<Value> = deltas.iter().map(delta).collect();
    answer(Kind::Chat, &chunks)["choices"][0]["message"].clone()
}

fn in_choice(choice: &Value) -> Value {
    json!({ "id": "c1", "choices": [choice] })
}

#[test]
fn a_chat_reads_as_if_it_had_not_been_streamed() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.5 });
    let chunks = [
        delta(&json!({ "role": "assistant", "content": "" })).to_string(),
        delta(&json!({ "content": "The \"" })).to_string(),
        delta(&json!({ "content": "sky\"" })).to_string(),
        json!({ "id": "c1", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }).to_string(),
        json!({ "id": "c1", "choices": [], "usage": usage }).to_string(),
    ];
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let expected = json!({
        "id": "c1", "object": "chat.completion", "created": 9, "model": "public",
        "choices": [{
            "index": 0, "message": { "role": "assistant", "content": "The \"sky\"" }, "logprobs": null, "finish_reason": "stop",
        }],
        "usage": usage,
    });
    assert_eq!(text_of(Kind::Chat, &chunks), expected.to_string());
}

#[test]
fn a_completion_reads_as_if_it_had_not_been_streamed() {
    let piece = |text: &str, finish_reason: Option<&str>| {
        in_choice(&json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason }))
    };
    assert_eq!(
        answer(
            Kind::Completion,
            &[piece("a", None), piece("", None), piece("b", Some("length"))]
        ),
        json!({
            "id": "c1", "object": "text_completion", "created": 0, "model": "public",
            "choices": [{ "index": 0, "text": "ab", "logprobs": null, "finish_reason": "length" }],
            "usage": Usage::new(7, 2),
        })
    );
}

#[test]
fn what_nobody_knows_is_kept_to_the_last_digit() {
    let chunks = [
        r#"{"x":1.50,"choices":[{"y":[1.0e2, {"index":0}],"delta":{"z":12345678901234567890.10,"w":{"v":1.000}}}]}"#,
        r#"{"x":null,"choices":[{"y":null,"delta":{"content":"\ud83d"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ude00 \u0041"}}]}"#,
    ];
    let text = text_of(Kind::Chat, &chunks);
    for kept in [
        r#""x":1.50"#,
        r#""y":[1.0e2, {"index":0}]"#,
        r#""z":12345678901234567890.10"#,
        r#""w":{"v":1.000}"#,
        r#""content":"\ud83d\ude00 \u0041""#,
    ] {
        assert!(text.contains(kept), "{text}");
    }
    let message = &serde_json::from_str::<Value>(&text).unwrap()["choices"][0]["message"];
    assert_eq!(message["content"], "😀 A");
}

#[test]
fn beside_the_choices_the_last_counts_and_the_first_id_that_says_something() {
    let chunks = [
        json!({ "id": "", "created": 0, "choices": [], "prompt_filter_results": [1] }),
        json!({ "id": "a", "created": 5, "system_fingerprint": "f", "service_tier": "default", "usage": { "prompt_tokens": 1 } }),
        json!({ "id": "b", "created": 6, "system_fingerprint": null, "service_tier": "flex", "usage": { "prompt_tokens": 2 } }),
        json!({ "usage": null, "choices": null, "obfuscation": "xxxx" }),
    ];
    assert_eq!(
        answer(Kind::Chat, &chunks),
        json!({
            "id": "a", "object": "chat.completion", "created": 5, "model": "public", "choices": [],
            "usage": { "prompt_tokens": 2 }, "prompt_filter_results": [1], "system_fingerprint": "f", "service_tier": "flex",
        })
    );
}

#[test]
fn answers_stand_in_the_order_of_their_index_however_they_come() {
    let chunks = [
        json!({ "choices": [{ "index": 2, "text": "c" }, { "index": 0, "text": "a" }] }),
        json!({ "choices": [{ "index": 300, "text": "z", "finish_reason": "stop" }] }),
        json!({ "choices": [{ "index": 0, "text": "A" }, { "index": 2, "text": "C" }] }),
    ];
    let answer = answer(Kind::Completion, &chunks);
    let texts: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (&it["index"], &it["text"]))
        .collect();
    assert_eq!(json!(texts), json!([[0, "aA"], [2, "cC"], [300, "z"]]));
}

#[test]
fn a_finish_reason_stays_and_so_does_a_stop_reason() {
    let chunks = [
        in_choice(&json!({ "text": "a", "finish_reason": "stop", "stop_reason": 128_009, "seed": 5 })),
        in_choice(&json!({ "text": "", "finish_reason": null, "stop_reason": null })),
    ];
    let choice = &answer(Kind::Completion, &chunks)["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], 128_009);
    assert_eq!(choice["seed"], 5);
}

#[test]
fn tool_calls_grow_side_by_side_and_lose_their_index() {
    let deltas = [
        json!({ "role": "assistant", "content": null, "tool_calls": [] }),
        json!({ "tool_calls": [{ "index": 1, "id": "c2", "type": "function", "function": { "name": "g", "arguments": "" } }] }),
        json!({ "tool_calls": [{ "index": 0, "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a" } }] }),
        json!({ "tool_calls": [
            { "index": 0, "id": "", "function": { "name": null, "arguments": "\": 1}" } },
            { "index": 1, "id": null, "type": "function", "function": { "name": "g", "arguments": "{}" } },
        ] }),
    ];
    assert_eq!(
        message(&deltas),
        json!({ "role": "assistant", "content": null, "tool_calls": [
            { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\": 1}" } },
            { "id": "c2", "type": "function", "function": { "name": "g", "arguments": "{}" } },
        ] })
    );
}

#[test]
fn tool_calls_without_an_index_stand_one_behind_the_other() {
    let call = |name: &str| json!({ "id": name, "type": "function", "function": { "name": name, "arguments": "{}" } });
    let deltas = [
        json!({ "tool_calls": [call("f")] }),
        json!({ "tool_calls": [call("g")] }),
    ];
    assert_eq!(message(&deltas)["tool_calls"], json!([call("f"), call("g")]));
}

#[test]
fn reasoning_and_refusal_grow_and_content_is_null_unless_some_came() {
    let deltas = [
        json!({ "reasoning_content": "I ", "reasoning": "x", "refusal": null }),
        json!({ "reasoning_content": "think", "reasoning": "y", "refusal": "no" }),
    ];
    assert_eq!(
        message(&deltas),
        json!({ "role": "assistant", "content": null, "reasoning_content": "I think", "reasoning": "xy", "refusal": "no" })
    );
    assert_eq!(
        message(&[json!({ "content": "" }), json!({ "content": null })])["content"],
        ""
    );
    assert_eq!(
        message(&[json!({ "role": "tool" }), json!({ "role": "" })])["role"],
        "tool"
    );
}

#[test]
fn a_delta_that_is_said_twice_counts_once() {
    let choice = json!({ "delta": { "content": "b" }, "message": { "content": "ab" }, "text": "b" });
    let message = json!({ "role": "assistant", "content": "b" });
    let answer = answer(Kind::Chat, &[in_choice(&choice)]);
    let expected = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": null });
    assert_eq!(answer["choices"][0], expected);
}

#[test]
fn log_probabilities_grow_and_are_never_taken_for_a_list_with_an_index() {
    let with = |logprobs: Value| in_choice(&json!({ "text": "a", "logprobs": logprobs }));
    let chunks = [
        with(
            json!({ "tokens": ["a"], "token_logprobs": [null], "top_logprobs": [{ "index": 0 }], "text_offset": [0] }),
        ),
        with(Value::Null),
        with(json!({ "tokens": [], "token_logprobs": [ ], "top_logprobs": null })),
        with(
            json!({ "tokens": ["b", "c"], "token_logprobs": [-1, -0.5], "top_logprobs": [{ "index": 0 }, null] }),
        ),
    ];
    assert_eq!(
        answer(Kind::Completion, &chunks)["choices"][0]["logprobs"],
        json!({
            "tokens": ["a", "b", "c"], "token_logprobs": [null, -1, -0.5], "top_logprobs": [{ "index": 0 }, { "index": 0 }, null],
            "text_offset": [0],
        })
    );
    let with = |logprobs: Value| in_choice(&json!({ "delta": { "content": "a" }, "logprobs": logprobs }));
    let entry = json!({ "token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [] });
    let chunks = [
        with(json!({ "content": [entry], "refusal": null })),
        with(json!({ "content": [entry, entry], "refusal": null })),
    ];
    assert_eq!(
        answer(Kind::Chat, &chunks)["choices"][0]["logprobs"],
        json!({ "content": [entry, entry, entry], "refusal": null })
    );
}

#[test]
fn the_ids_of_tokens_grow() {
    let with = |ids: Value| in_choice(&json!({ "text": "a", "token_ids": ids }));
    let chunks = [with(json!([1, 2])), with(Value::Null), with(json!([3]))];
    assert_eq!(
        answer(Kind::Completion, &chunks)["choices"][0]["token_ids"],
        json!([1, 2, 3])
    );
}

#[test]
fn what_is_no_chunk_is_an_error() {
    for nonsense in [
        "",
        "[]",
        "{",
        r#"{"choices":5}"#,
        r#"{"choices":[5]}"#,
        r#"{"choices":[{"index":-1}]}"#,
        r#"{"choices":[{"index":"0"}]}"#,
    ] {
        let error = Assembly::new(Kind::Chat).add(nonsense).unwrap_err();
        assert!(matches!(error, AssemblyError::Json(_)), "{nonsense}");
    }
}

#[test]
fn an_answer_has_a_largest_size_in_whatever_it_is_said() {
    let long = "x".repeat(1_000_000);
    let fields: serde_json::Map<_, _> = (0..2_000)
        .map(|number| (number.to_string(), Value::Null))
        .collect();
    let mut index = 0_u64;
    let mut next = || {
        index += 1;
        index
    };
    let is_bounded = |chunk: &mut dyn FnMut() -> Value| {
        let mut assembly = Assembly::new(Kind::Chat);
        let mut chunks = (0..500_000).map(|_| assembly.add(&chunk().to_string()));
        chunks.any(|added| matches!(added, Err(AssemblyError::TooLarge)))
    };
    assert!(is_bounded(&mut || delta(&json!({ "content": long }))));
    assert!(is_bounded(&mut || in_choice(
        &json!({ "logprobs": { "content": [long] } })
    )));
    assert!(is_bounded(&mut || in_choice(&json!({ "index": next() }))));
    assert!(is_bounded(&mut || delta(
        &json!({ "tool_calls": [{ "index": next() }] })
    )));
    assert!(is_bounded(&mut || delta(
        &json!({ "tool_calls": [{ "index": u64::MAX }, {}] })
    )));
    assert!(is_bounded(&mut || delta(&json!(fields))));
}

#[test]
fn what_is_replaced_takes_no_room() {
    let mut assembly = Assembly::new(Kind::Chat);
    for number in 0..100_u64 {
        let chunk = json!({ "usage": { "prompt_tokens": number, "x": "y".repeat(1_000_000) } });
        assembly.add(&chunk.to_string()).unwrap();
    }
}

#[test]
fn deep_nesting_is_kept_and_overflows_nothing() {
    let deep = format!("{}5{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let chunk = format!(r#"{{"choices":[{{"delta":{{"x":{deep}}}}}]}}"#);
    assert!(text_of(Kind::Chat, &[&chunk]).contains(&deep));
}

#[test]
fn a_chunk_that_is_as_the_one_before_but_for_its_text_is_known_without_parsing() {
    let chat = |text: &str| {
        format!(
            r#"{{"id":"c","model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
        )
    };
    let mut assembly = Assembly::new(Kind::Chat);
    assert_eq!(assembly.add_usual(&chat("a")).unwrap(), None);
    assembly.add(&chat("a")).unwrap();
    assert_eq!(assembly.add_usual(&chat(" ä☂")).unwrap(), Some(true));
    assert_eq!(assembly.add_usual(&chat("")).unwrap(), Some(false));
    // What may mean something else is read.
    for text in [r"\n", r#"","role":"user"#, "\u{1}"] {
        assert_eq!(assembly.add_usual(&chat(text)).unwrap(), None, "{text}");
    }
    let answer: Value = serde_json::from_str(&assembly.finish("m", Usage::default())).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "a ä☂");
}

#[test]
fn what_would_count_twice_is_never_taken_for_usual() {
    for more in [
        r#""usage":{"completion_tokens":1}"#,
        r#""error":{"message":"no"}"#,
    ] {
        let chunk = format!(r#"{{{more},"choices":[{{"index":0,"text":"a"}}]}}"#);
        let mut assembly = Assembly::new(Kind::Completion);
        assembly.add(&chunk).unwrap();
        assert_eq!(assembly.add_usual(&chunk).unwrap(), None, "{chunk}");
    }
    for choice in [
        r#"{"index":0,"text":"a","logprobs":{"tokens":["a"]}}"#,
        r#"{"index":0,"text":"a","token_ids":[1]}"#,
        r#"{"index":0,"text":"a","finish_reason":"stop"}"#,
        r#"{"index":0,"text":"a","text":"b"}"#,
        r#"{"index":0,"text":"a"},{"index":1,"text":"b"}"#,
    ] {
        let chunk = format!(r#"{{"choices":[{choice}]}}"#);
        let mut assembly = Assembly::new(Kind::Completion);
        assembly.add(&chunk).unwrap();
        assert_eq!(assembly.add_usual(&chunk).unwrap(), None, "{chunk}");
    }
}
