use llm_engine_wire::openai::{Chunk, Kind, Response};
use proptest::prelude::*;
use serde_json::{Value, json};

fn chunk(value: Value) -> Chunk {
    serde_json::from_value(value).unwrap()
}

/// The answer that these chunks make.
fn together(kind: Kind, chunks: impl IntoIterator<Item = Value>) -> Value {
    let mut response = Response::empty(kind);
    for value in chunks {
        response.append(chunk(value));
    }
    serde_json::to_value(response).unwrap()
}

fn chat(delta: Value, finish_reason: Option<&str>) -> Value {
    json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 9, "model": "up",
        "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }],
    })
}

fn completion(text: &str, finish_reason: Option<&str>) -> Value {
    json!({
        "id": "c1", "object": "text_completion", "created": 9, "model": "up",
        "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason }],
    })
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> Value {
    json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

#[test]
fn a_chat_is_put_together_with_its_usage_and_finish_reason() {
    let last = json!({ "id": "c1", "created": 9, "model": "up", "choices": [], "usage": usage(7, 2) });
    let chunks = [
        chat(json!({ "role": "assistant", "content": "" }), None),
        chat(json!({ "content": "The" }), None),
        chat(json!({ "content": " sky" }), None),
        chat(json!({}), Some("stop")),
        last,
    ];
    assert_eq!(
        together(Kind::Chat, chunks),
        json!({
            "id": "c1", "object": "chat.completion", "created": 9, "model": "up",
            "choices": [{
                "index": 0, "message": { "role": "assistant", "content": "The sky" }, "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": usage(7, 2),
        })
    );
}

#[test]
fn a_completion_is_put_together_with_its_usage_and_finish_reason() {
    let mut last = completion("c", Some("length"));
    last["usage"] = usage(1, 3);
    assert_eq!(
        together(
            Kind::Completion,
            [completion("a", None), completion("", None), last]
        ),
        json!({
            "id": "c1", "object": "text_completion", "created": 9, "model": "up",
            "choices": [{ "index": 0, "text": "ac", "logprobs": null, "finish_reason": "length" }],
            "usage": usage(1, 3),
        })
    );
}

#[test]
fn the_latest_usage_is_the_one_that_counts_and_without_one_it_is_nothing() {
    let counted = |tokens: u64| {
        let mut chunk = completion("a", None);
        chunk["usage"] = usage(5, tokens);
        chunk
    };
    let chunks = [counted(1), completion("a", None), counted(4)];
    assert_eq!(together(Kind::Completion, chunks)["usage"], usage(5, 4));
    assert_eq!(
        together(Kind::Completion, [completion("a", None)])["usage"],
        usage(0, 0)
    );
    let mut null = completion("a", None);
    null["usage"] = Value::Null;
    assert_eq!(
        together(Kind::Completion, [counted(2), null])["usage"],
        usage(5, 2)
    );
}

#[test]
fn a_finish_reason_stays_and_another_choice_stands_beside_it() {
    let mut other = completion("other", Some("length"));
    other["choices"][0]["index"] = 2.into();
    let mut absurd = completion("absurd", None);
    absurd["choices"][0]["index"] = 4_000_000_000_u32.into();
    let chunks = [completion("a", Some("stop")), other, absurd, completion("", None)];
    let choices = together(Kind::Completion, chunks)["choices"].clone();
    assert_eq!(
        choices,
        json!([
            { "index": 0, "text": "a", "logprobs": null, "finish_reason": "stop" },
            { "index": 1, "text": "", "logprobs": null, "finish_reason": null },
            { "index": 2, "text": "other", "logprobs": null, "finish_reason": "length" },
        ])
    );
}

#[test]
fn the_log_probabilities_of_a_completion_grow_side_by_side() {
    let with = |tokens: Value, log_probs: Value| {
        let mut chunk = completion("a", None);
        chunk["choices"][0]["logprobs"] = json!({ "tokens": tokens, "token_logprobs": log_probs });
        chunk
    };
    let chunks = [
        with(json!(["a"]), json!([-0.5])),
        completion("", None),
        with(json!(["b", "c"]), json!([-1, -2])),
    ];
    assert_eq!(
        together(Kind::Completion, chunks)["choices"][0]["logprobs"],
        json!({ "tokens": ["a", "b", "c"], "token_logprobs": [-0.5, -1, -2] })
    );
}

#[test]
fn a_chunk_without_log_probabilities_takes_none_of_the_earlier_ones() {
    let with = |content: Value| {
        let mut chunk = chat(json!({ "content": "a" }), None);
        chunk["choices"][0]["logprobs"] = json!({ "content": content, "refusal": null });
        chunk
    };
    let first = json!({ "token": "a", "logprob": -0.5 });
    let chunks = [with(json!([first])), with(json!([])), with(Value::Null)];
    assert_eq!(
        together(Kind::Chat, chunks)["choices"][0]["logprobs"]["content"],
        json!([first])
    );
}

#[test]
fn a_chunk_may_lack_what_some_servers_leave_out() {
    for value in [
        json!({}),
        json!({ "choices": [] }),
        json!({ "choices": [{}] }),
        json!({ "choices": [{ "delta": null, "text": null, "finish_reason": null }] }),
        json!({ "choices": [{ "delta": { "role": null, "content": null, "tool_calls": [] } }], "usage": null }),
        json!({ "choices": [], "usage": { "prompt_tokens": 3 }, "system_fingerprint": "f" }),
        json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": null } }),
    ] {
        assert!(serde_json::from_value::<Chunk>(value.clone()).is_ok(), "{value}");
    }
}

proptest! {
    #[test]
    fn however_a_text_is_split_into_chunks_it_is_the_same(
        text in any::<String>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        chat_route in any::<bool>(),
    ) {
        let characters: Vec<char> = text.chars().collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(characters.len() + 1)).collect();
        places.extend([0, characters.len()]);
        places.sort_unstable();
        let piece = |pair: &[usize]| characters[pair[0]..pair[1]].iter().collect::<String>();
        let pieces: Vec<String> = places.windows(2).map(piece).collect();
        let (kind, place) = if chat_route {
            (Kind::Chat, "/choices/0/message/content")
        } else {
            (Kind::Completion, "/choices/0/text")
        };
        let chunks = pieces.iter().map(|piece| match kind {
            Kind::Chat => chat(json!({ "content": piece }), None),
            Kind::Completion | Kind::Embedding => completion(piece, None),
        });
        let answer = together(kind, chunks);
        prop_assert_eq!(answer.pointer(place), Some(&Value::from(text)));
    }
}

#[test]
fn a_plain_chunk_keeps_every_byte_but_those_of_the_model() {
    let json = |model: &str| {
        format!(
            r#"{{ "x": [1.50, {{}}], "model" : {model},"choices":[{{"index":0,"delta":{{"content":"a\u0062"}}}}],"created":5}}"#
        )
    };
    let (chunk, renamed) = Chunk::read_plain(&json(r#""Qwen\/3""#), r#""m""#).unwrap();
    assert_eq!(renamed, json(r#""m""#));
    assert_eq!(chunk, serde_json::from_str(&json(r#""Qwen/3""#)).unwrap());
    assert_eq!(chunk.choices[0].added_text(), "ab");
}

#[test]
fn a_chunk_with_a_usage_or_an_error_or_without_a_model_and_what_is_none_are_not_plain() {
    for other in [
        r#"{"model":"m","usage":null}"#,
        r#"{"model":"m","usage":{"prompt_tokens":1}}"#,
        r#"{"model":"m","error":null}"#,
        r#"{"model":5}"#,
        r#"{"model":"a","model":"b"}"#,
        r#"{"choices":[]}"#,
        r#"{"model":"m","choices":5}"#,
        r#"["","",0,"m",[],false,false]"#,
        r#"{"model":"m"}x"#,
        "",
    ] {
        assert_eq!(Chunk::read_plain(other, r#""m""#), None, "{other}");
    }
}
