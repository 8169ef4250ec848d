use llm_engine_wire::openai::{Kind, Request};
use llm_engine_wire::v2::{self, RequestError};
use llm_engine_wire::validation::{Body, Problem};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json::any_fields;

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "best_of",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "guided_choice",
    "user",
];

fn chat() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] })
}

fn completion() -> Value {
    json!({ "model": "m", "prompt": "p" })
}

/// The good request of that route with one field more.
fn with(kind: Kind, name: &str, value: &Value) -> Body {
    let mut body = match kind {
        Kind::Chat => chat(),
        Kind::Completion | Kind::Embedding => completion(),
    };
    body[name] = value.clone();
    Body::Json(body)
}

fn read(kind: Kind, name: &str, value: &Value) -> Request {
    v2::read(kind, &with(kind, name, value)).unwrap()
}

/// The type and the place of each problem, in order.
fn problems(kind: Kind, body: &Body) -> Vec<String> {
    let shown =
        |problem: &Problem| format!("{} {}", problem.kind, serde_json::to_value(&problem.loc).unwrap());
    match v2::read(kind, body) {
        Err(RequestError::Invalid(problems)) => problems.iter().map(shown).collect(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_openai_s_route_would_read(fields in any_fields(FIELDS), is_chat: bool) {
        let kind = if is_chat { Kind::Chat } else { Kind::Completion };
        match v2::read(kind, &Body::Json(fields.into())) {
            Ok(request) => {
                let temperature = request.sampling.temperature;
                prop_assert!(temperature.is_none_or(|temperature| (0.0..=2.0).contains(&temperature)));
                prop_assert!(request.sampling.n.is_none_or(|n| (1..=128).contains(&n)));
                prop_assert!(request.check_stop_count().is_ok());
                prop_assert!(request.field("stream").is_none_or(Value::is_boolean));
                for name in ["max_tokens", "top_logprobs", "best_of", "seed"] {
                    prop_assert!(request.field(name).is_none_or(|value| value.is_i64() || value.is_u64()), "{}", name);
                }
            }
            Err(RequestError::Invalid(problems)) => prop_assert!(!problems.is_empty()),
            Err(RequestError::Refused(invalid)) => prop_assert!(invalid.param.is_some()),
        }
    }
}

#[test]
fn a_range_ends_where_the_public_servers_have_it_end() {
    use Kind::{Chat, Completion};
    for (kind, name, good, bad) in [
        (
            Chat,
            "temperature",
            [json!(0), json!(2)],
            [json!(-0.1), json!(2.1)],
        ),
        (Chat, "n", [json!(1), json!(128)], [json!(0), json!(129)]),
        (
            Chat,
            "top_logprobs",
            [json!(0), json!(20)],
            [json!(-1), json!(21)],
        ),
        (
            Chat,
            "presence_penalty",
            [json!(-2), json!(2)],
            [json!(-2.1), json!(2.1)],
        ),
        (
            Completion,
            "frequency_penalty",
            [json!(-2), json!(2)],
            [json!(-3), json!(3)],
        ),
        (
            Completion,
            "best_of",
            [json!(0), json!(20)],
            [json!(-1), json!(21)],
        ),
        (
            Completion,
            "logprobs",
            [json!(0), json!(5)],
            [json!(-1), json!(6)],
        ),
        (Chat, "top_k", [json!(-1), json!(50)], [json!(-2), json!(-9)]),
    ] {
        for value in good {
            assert_eq!(read(kind, name, &value).field(name), Some(&value), "{name}");
        }
        for value in bad {
            let found = problems(kind, &with(kind, name, &value));
            assert_eq!(found.len(), 1, "{name} {value}");
            assert!(
                found[0].ends_with(&format!(" [\"body\",\"{name}\"]")),
                "{found:?}"
            );
        }
    }
}

#[test]
fn one_stop_or_up_to_four_are_read() {
    for stop in [json!("a"), json!(["a"]), json!(["a", "b", "c", "d"])] {
        let request = read(Kind::Chat, "stop", &stop);
        assert_eq!(request.field("stop"), Some(&stop));
    }
    let stop = |value| problems(Kind::Completion, &with(Kind::Completion, "stop", &value));
    let text = "string_type [\"body\",\"stop\",\"str\"]";
    assert_eq!(
        stop(json!([])),
        [text, "too_short [\"body\",\"stop\",\"StopConfiguration1\"]"]
    );
    assert_eq!(
        stop(json!(["a", 1])),
        [text, "string_type [\"body\",\"stop\",\"StopConfiguration1\",1]"]
    );
    assert_eq!(
        stop(json!(1)),
        [text, "list_type [\"body\",\"stop\",\"StopConfiguration1\"]"]
    );
}

#[test]
fn a_prompt_is_a_text_or_a_list() {
    for prompt in [json!("p"), json!(["p", "q"]), json!([1, 2]), json!([[1], [2]])] {
        assert_eq!(
            read(Kind::Completion, "prompt", &prompt).field("prompt"),
            Some(&prompt)
        );
    }
    assert_eq!(
        problems(Kind::Completion, &with(Kind::Completion, "prompt", &json!(5))),
        [
            "string_type [\"body\",\"prompt\",\"str\"]",
            "list_type [\"body\",\"prompt\",\"list[str]\"]"
        ]
    );
}

#[test]
fn null_is_as_good_as_nothing_but_for_what_is_required() {
    let mut body = chat();
    for name in [
        "temperature",
        "stop",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
    ] {
        body[name] = Value::Null;
    }
    let request = v2::read(Kind::Chat, &Body::Json(body)).unwrap();
    assert!(!request.stream);
    assert_eq!(request.max_output_tokens(), None);
    let nothing = Body::Json(json!({ "model": null, "messages": null }));
    assert_eq!(
        problems(Kind::Chat, &nothing),
        [
            "list_type [\"body\",\"messages\"]",
            "string_type [\"body\",\"model\"]"
        ]
    );
}

#[test]
fn what_is_no_object_is_told_as_on_v1() {
    for (body, problem) in [
        (Body::Empty, "missing [\"body\"]"),
        (Body::Json(json!([])), "model_attributes_type [\"body\"]"),
        (Body::Text("{}".to_owned()), "model_attributes_type [\"body\"]"),
    ] {
        assert_eq!(problems(Kind::Chat, &body), [problem]);
    }
}
