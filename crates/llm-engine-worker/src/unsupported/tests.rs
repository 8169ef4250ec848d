use llm_engine_wire::openai::{Kind, Request};
use serde_json::{Value, json};

use super::{FIELDS, refuse_unsupported};

fn request(kind: Kind, name: &str, value: Value) -> Request {
    let mut fields = match kind {
        Kind::Chat => json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
        Kind::Completion => json!({"model": "m", "prompt": "hi"}),
        Kind::Embedding => json!({"model": "m", "input": "hi"}),
    };
    fields[name] = value;
    Request::parse(kind, fields.to_string().as_bytes()).unwrap()
}

#[test]
fn what_asks_for_something_is_refused() {
    let asking = [
        ("n", json!(2)),
        ("best_of", json!(2)),
        ("logit_bias", json!({"5": 1})),
        ("logprobs", json!(true)),
        ("logprobs", json!(0)),
        ("top_logprobs", json!(3)),
        ("guided_json", json!({"type": "object"})),
        ("guided_regex", json!("a+")),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("auto")),
        ("suffix", json!("end")),
        ("echo", json!(true)),
        ("skip_special_tokens", json!(false)),
        ("min_p", json!(0.1)),
    ];
    for (name, value) in asking {
        let refusal = refuse_unsupported(&request(Kind::Completion, name, value)).unwrap_err();
        assert_eq!(refusal.body.error.param.as_deref(), Some(name));
        assert!(
            refusal
                .body
                .error
                .message
                .ends_with("is not supported by this model runner"),
            "{name}"
        );
    }
    let list = request(Kind::Completion, "prompt", json!(["a", "b"]));
    assert_eq!(
        refuse_unsupported(&list).unwrap_err().body.error.param.as_deref(),
        Some("prompt")
    );
}

#[test]
fn what_asks_for_nothing_is_accepted() {
    let neutral = [
        ("n", json!(1)),
        ("best_of", json!(1)),
        ("logit_bias", json!({})),
        ("logprobs", json!(false)),
        ("response_format", json!({"type": "text"})),
        ("modalities", json!(["text"])),
        ("tools", json!([])),
        ("suffix", json!("")),
        ("skip_special_tokens", json!(true)),
        ("user", json!("somebody")),
    ];
    for (name, value) in neutral {
        assert_eq!(
            refuse_unsupported(&request(Kind::Completion, name, value)),
            Ok(()),
            "{name}"
        );
    }
    for (name, _) in FIELDS {
        assert_eq!(
            refuse_unsupported(&request(Kind::Chat, name, Value::Null)),
            Ok(()),
            "{name}"
        );
    }
}
