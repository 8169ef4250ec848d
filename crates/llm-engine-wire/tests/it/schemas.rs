//! The schemas of requests agree with the readers: what a schema allows is read, and what is read beyond it is a lax form of
//! what it allows.

use llm_engine_wire::batch_completions::{BatchCompletionsRequest, Version};
use llm_engine_wire::openai::{self, BatchRequest, Kind, Request};
use llm_engine_wire::v1::{CompletionRequest, RequestError};
use llm_engine_wire::v2;
use llm_engine_wire::validation::Body;
use serde_json::{Value, json};

const VALUES: &str = include_str!("../data/pydantic-values.jsonl");

/// Everything that pydantic was asked about, and what the forms beyond its types can be.
fn values() -> Vec<Value> {
    let recorded = VALUES
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].take());
    let more = [
        json!([]),
        json!(["a", "b", "c", "d"]),
        json!(["a", "b", "c", "d", "e"]),
        json!([{}]),
        json!([{ "role": "user" }]),
        json!([{ "role": 1 }]),
        json!({ "include_usage": true }),
        json!({ "include_usage": [] }),
        json!(129),
        json!(-2.5),
    ];
    recorded.chain(more).collect()
}

/// For each field of the schema and each value: whether the schema allows a body with it, and what `reads` says.
fn compare(schema: &Value, base: &Value, reads: impl Fn(&Value) -> bool) -> Vec<(String, Value, bool, bool)> {
    let validator = jsonschema::validator_for(schema).unwrap();
    assert!(validator.is_valid(base) && reads(base));
    let names = schema["properties"].as_object().unwrap().keys();
    let bodies = names.flat_map(|name| values().into_iter().map(move |value| (name, value)));
    let compared = bodies.map(|(name, value)| {
        let mut body = base.clone();
        body[name] = value.clone();
        (name.clone(), value, validator.is_valid(&body), reads(&body))
    });
    compared.collect()
}

/// Numbers and truth in other words: all that lax reading adds.
fn is_lax(value: &Value) -> bool {
    value.is_string() || value.is_boolean() || value.is_number()
}

fn read_v1(body: &Value) -> bool {
    let read = CompletionRequest::read(Some("m"), &Body::Json(body.clone()));
    !matches!(read, Err(RequestError::Invalid(_)))
}

fn read_v2(kind: Kind) -> impl Fn(&Value) -> bool {
    move |body| {
        !matches!(
            v2::read(kind, &Body::Json(body.clone())),
            Err(v2::RequestError::Invalid(_))
        )
    }
}

fn base(kind: Kind) -> Value {
    match kind {
        Kind::Chat => json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] }),
        Kind::Completion => json!({ "model": "m", "prompt": "x" }),
        Kind::Embedding => json!({ "model": "m", "input": "x" }),
    }
}

#[test]
fn what_a_schema_allows_is_read_and_what_is_read_beyond_it_is_lax() {
    let v1 = json!({ "prompt": "x", "max_new_tokens": 1, "temperature": 0.5 });
    let mut compared = compare(&CompletionRequest::schema(), &v1, read_v1);
    for kind in [Kind::Chat, Kind::Completion] {
        compared.extend(compare(&v2::schema(kind), &base(kind), read_v2(kind)));
    }
    let batch = json!({ "output_data_path": "o", "model_config": { "model": "m" } });
    for version in [Version::V1, Version::V2] {
        let reads = |body: &Value| BatchCompletionsRequest::read(version, &Body::Json(body.clone())).is_ok();
        compared.extend(compare(&BatchCompletionsRequest::schema(version), &batch, reads));
    }
    let mut lax = 0;
    for (name, value, is_allowed, is_read) in compared {
        assert!(
            is_read || !is_allowed,
            "{name} = {value} is allowed, but not read"
        );
        if is_read && !is_allowed {
            assert!(is_lax(&value), "{name} = {value} is read, but not allowed");
            lax += 1;
        }
    }
    assert!(lax > 100, "only {lax}");
}

#[test]
fn openai_s_routes_read_exactly_what_their_schema_allows() {
    // Too many tokens to ask for, and no number of tokens to choose from: allowed where a schema can't tell.
    let untold = |name: &str, value: &Value| match name {
        "top_k" => value == 0 || value.as_i64().is_some_and(|top_k| i32::try_from(top_k).is_err()),
        "max_tokens" | "max_completion_tokens" => value.is_u64(),
        "stop" => *value == json!([]),
        // An option that is neither true nor false is not set.
        "stream_options" => value.is_object(),
        // Numbers are read in single precision, in which these are 0, 1 and 2.
        _ => [json!(5e-324), json!(1.0000001), json!(2.0000001)].contains(value),
    };
    for kind in [Kind::Chat, Kind::Completion] {
        let reads = |body: &Value| {
            let request = Request::from_fields(kind, body.as_object().unwrap().clone());
            request.is_ok_and(|request| request.check_stop_count().is_ok())
        };
        for (name, value, is_allowed, is_read) in compare(&openai::schema(kind), &base(kind), reads) {
            // A whole number with a fraction of nothing is one to a schema.
            let is_whole = value.is_f64() && value.as_f64().is_some_and(|number| number.fract() == 0.0);
            if !untold(&name, &value) && !is_whole {
                assert_eq!(is_read, is_allowed, "{name} = {value}");
            }
        }
    }
}

#[test]
fn openai_s_batches_read_exactly_what_their_schema_allows() {
    let base = json!({ "input_file_id": "f", "endpoint": "/v1/completions", "completion_window": "24h" });
    let reads = |body: &Value| BatchRequest::parse(body.to_string().as_bytes()).is_ok();
    for (name, value, is_allowed, is_read) in compare(&BatchRequest::schema(), &base, reads) {
        assert_eq!(is_read, is_allowed, "{name} = {value}");
    }
    let seconds = |seconds: Value| json!({ "anchor": "created_at", "seconds": seconds });
    for (value, is_good) in [
        (seconds(json!(3600)), true),
        (seconds(json!(3600.0)), true),
        (seconds(json!(3599)), false),
        (seconds(json!(2_592_001)), false),
        (json!({ "seconds": 3600 }), false),
    ] {
        let mut body = base.clone();
        body["output_expires_after"] = value.clone();
        assert_eq!(reads(&body), is_good, "{value}");
    }
}

#[test]
fn v1_reads_no_field_that_its_schema_does_not_name() {
    let schema = CompletionRequest::schema();
    let properties = schema["properties"].as_object().unwrap();
    let wrong: Value = properties
        .keys()
        .map(|name| (name.clone(), json!({ "x": [] })))
        .collect();
    let Err(RequestError::Invalid(problems)) = CompletionRequest::read(Some("m"), &Body::Json(wrong)) else {
        panic!("nothing of it is right");
    };
    // An object is what one of them wants.
    assert_eq!(problems.len(), properties.len() - 1);
    let written = serde_json::to_value(CompletionRequest::new("m", "x", 1, 0.5)).unwrap();
    for name in written.as_object().unwrap().keys() {
        assert!(properties.contains_key(name), "{name}");
    }
}
