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
        ("best_of", json!(2)),
        ("guided_whitespace_pattern", json!(" ?")),
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("auto")),
        ("suffix", json!("end")),
        ("echo", json!(true)),
        ("store", json!(true)),
        ("min_tokens", json!(5)),
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
}

#[test]
fn what_asks_for_nothing_is_accepted() {
    let neutral = [
        ("best_of", json!(1)),
        ("store", json!(false)),
        ("modalities", json!(["text"])),
        ("tools", json!([])),
        ("suffix", json!("")),
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
