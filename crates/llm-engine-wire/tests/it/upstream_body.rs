use llm_engine_wire::openai::{Kind, Request, Upstream};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::json::{any_text, any_value};

const PLAIN: Upstream<'static> = Upstream {
    model: "up",
    max_output_tokens: None,
    stream: false,
    continuous_usage: false,
};

fn request(kind: Kind, fields: &Value) -> Request {
    Request::from_fields(kind, fields.as_object().unwrap().clone()).unwrap()
}

fn chat(more: &Value) -> Request {
    let mut fields = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request(Kind::Chat, &fields)
}

fn sent(request: &Request, upstream: &Upstream<'_>) -> Value {
    serde_json::from_str(&request.upstream_body(upstream)).unwrap()
}

proptest! {
    #[test]
    fn whatever_is_not_acted_on_arrives_untouched_and_in_order(
        before in prop::collection::vec((any_text(), any_value()), 0..4),
        after in prop::collection::vec((any_text(), any_value()), 0..4),
        stream in any::<bool>(),
    ) {
        let acted_on = [
            "model", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
            "top_k", "presence_penalty", "frequency_penalty", "seed", "stop", "include_stop_str_in_output", "n",
        ];
        let passed = |fields: Vec<(String, Value)>| -> Vec<(String, Value)> {
            fields.into_iter().filter(|(name, _)| !acted_on.contains(&name.as_str())).collect()
        };
        let fields: Map<String, Value> = passed(before)
            .into_iter()
            .chain([("model".to_owned(), json!("m")), ("prompt".to_owned(), json!("p"))])
            .chain(passed(after))
            .collect();
        let request = Request::from_fields(Kind::Completion, fields.clone()).unwrap();
        let mut expected = fields;
        expected.insert("model".to_owned(), json!("up"));
        if stream {
            expected.insert("stream".to_owned(), json!(true));
            expected.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        let sent = request.upstream_body(&Upstream { stream, ..PLAIN });
        prop_assert_eq!(sent, Value::from(expected).to_string());
    }
}

/// What is sent for this body, and what is expected: the same under the deployment's name.
fn both(body: &str) -> (String, String) {
    let request = Request::parse(Kind::Chat, body.as_bytes()).unwrap();
    let sent = request.upstream_body(&PLAIN);
    (sent, body.replace(r#""model":"m""#, r#""model":"up""#))
}

#[test]
fn nothing_but_the_model_is_changed_where_nothing_is_asked_for() {
    let (sent, expected) = both(
        r#"{"tools":[{"b":1,"a":2}],"model":"m","seed":12345678901234,"messages":[{"role":"user","content":[{"type":"image_url"}]}],"temperature":0.5,"x":{"z":null,"y":[1.0,-1e-7]}}"#,
    );
    assert_eq!(sent, expected);
}

#[test]
fn a_number_that_is_not_acted_on_keeps_its_value_to_the_last_digit() {
    for number in [
        "0.30000000000000004",
        "9.218227772971799e271",
        "18446744073709551615",
    ] {
        let (sent, expected) = both(&format!(
            r#"{{"model":"m","messages":[{{"role":"user"}}],"x":{number}}}"#
        ));
        assert_eq!(sent.replace("e+", "e"), expected);
    }
}

#[test]
fn the_bound_is_sent_under_the_name_that_the_caller_used() {
    let bounded = Upstream {
        max_output_tokens: Some(50),
        ..PLAIN
    };
    let fields = |more: Value| {
        let sent = sent(&chat(&more), &bounded);
        (sent["max_tokens"].clone(), sent["max_completion_tokens"].clone())
    };
    assert_eq!(fields(json!({})), (json!(50), Value::Null));
    assert_eq!(fields(json!({ "max_tokens": 7 })), (json!(50), Value::Null));
    assert_eq!(
        fields(json!({ "max_completion_tokens": 7 })),
        (Value::Null, json!(50))
    );
    assert_eq!(sent(&chat(&json!({ "max_tokens": 7 })), &PLAIN)["max_tokens"], 7);
    let completion = request(Kind::Completion, &json!({ "model": "m", "prompt": "p" }));
    assert_eq!(
        sent(&completion, &bounded),
        json!({ "model": "up", "prompt": "p", "max_tokens": 50 })
    );
}

#[test]
fn a_stream_is_asked_for_with_its_usage_and_the_caller_s_other_options_stay() {
    let streaming = Upstream {
        stream: true,
        ..PLAIN
    };
    let options = |more: Value| {
        let sent = sent(&chat(&more), &streaming);
        assert_eq!(sent["stream"], true);
        sent["stream_options"].clone()
    };
    assert_eq!(options(json!({})), json!({ "include_usage": true }));
    assert_eq!(
        options(json!({ "stream_options": null })),
        json!({ "include_usage": true })
    );
    assert_eq!(
        options(json!({ "stream": false, "stream_options": { "x": [1], "include_usage": false } })),
        json!({ "x": [1], "include_usage": true })
    );
    let continuous = Upstream {
        continuous_usage: true,
        ..streaming
    };
    assert_eq!(
        sent(&chat(&json!({})), &continuous)["stream_options"],
        json!({ "include_usage": true, "continuous_usage_stats": true })
    );
}

#[test]
fn the_request_itself_is_not_changed_by_sending_it() {
    let request = chat(&json!({ "stream": true }));
    let before = request.clone();
    let streaming = Upstream {
        stream: true,
        continuous_usage: true,
        max_output_tokens: Some(5),
        ..PLAIN
    };
    let first = request.upstream_body(&streaming);
    assert_eq!(request, before);
    assert_eq!(first, request.upstream_body(&streaming));
}

#[test]
fn an_embedding_is_sent_as_it_came_but_for_the_model() {
    let fields = json!({ "input": ["a"], "model": "m", "encoding_format": "base64", "user": "u" });
    let request = request(Kind::Embedding, &fields);
    let bounded = Upstream {
        max_output_tokens: Some(0),
        ..PLAIN
    };
    let sent = request.upstream_body(&bounded);
    assert_eq!(sent, fields.to_string().replace("\"m\"", "\"up\""));
}
