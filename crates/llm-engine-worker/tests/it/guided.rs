//! Answers that must have a form.

use std::time::Instant;

use futures_util::future::join_all;
use hyper::StatusCode;
use regex::Regex;
use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::running::{MODEL, Running};

fn fields(name: &str, form: &Value, more: &Value) -> Value {
    let mut fields =
        json!({"model": MODEL, "prompt": "Tell me something:", "max_tokens": 100, "temperature": 1});
    fields[name] = form.clone();
    fields
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    fields
}

/// Answers of one form, several at a time, all of which must have ended by themselves.
async fn answers(client: &Client, count: u64, name: &str, form: Value) -> Vec<String> {
    let ask = |seed: u64| {
        let fields = fields(name, &form, &json!({"seed": seed}));
        async move {
            let (status, answer) = client.post("/v1/completions", &fields).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], "stop", "{answer}");
            choice["text"].as_str().unwrap().to_owned()
        }
    };
    join_all((0..count).map(ask)).await
}

#[tokio::test]
async fn one_of_the_choices_is_the_answer() {
    let worker = Running::start();
    let choices = ["yes", "no", "yes, but", "\"maybe\"\n", "für 5 €", "a.b|c"];
    let answers = answers(&worker.client, 20, "guided_choice", json!(choices)).await;
    assert!(
        answers.iter().all(|answer| choices.contains(&answer.as_str())),
        "{answers:?}"
    );
    assert!(answers.iter().any(|answer| *answer != answers[0]));
}

#[tokio::test]
async fn the_answer_matches_the_regular_expression() {
    let worker = Running::start();
    let pattern = r"[A-Z][a-z]{2,8} (is|was) \d{1,3}(\.\d)?(/§[ä-ü]?)? years";
    let whole = Regex::new(&format!("^(?:{pattern})$")).unwrap();
    for pattern in [pattern.to_owned(), format!("^{pattern}$")] {
        let answers = answers(&worker.client, 10, "guided_regex", json!(pattern)).await;
        assert!(answers.iter().all(|answer| whole.is_match(answer)), "{answers:?}");
    }
}

#[tokio::test]
async fn the_answer_follows_the_schema() {
    let worker = Running::start();
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "tags"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": true}});
    for (name, form) in [
        ("guided_json", schema.clone()),
        ("guided_json", json!(schema.to_string())),
        ("response_format", format),
        ("structured_outputs", json!({"json": schema})),
    ] {
        for answer in answers(&worker.client, 5, name, form).await {
            let value: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(value.as_object().unwrap().len(), 3, "{answer}");
            assert!(
                (1..=12).contains(&value["name"].as_str().unwrap().chars().count()),
                "{answer}"
            );
            assert!(value["age"].as_u64().unwrap() <= 120, "{answer}");
            let tags = value["tags"].as_array().unwrap();
            assert!(
                tags.len() <= 3 && tags.iter().all(|tag| tag == "a" || tag == "b"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_json_object_is_one_as_far_as_it_goes() {
    let worker = Running::start();
    let fields = json!({"response_format": {"type": "json_object"}, "max_tokens": 60, "seed": 3});
    let answer = worker.client.ask(fields, "Describe the weather as JSON.").await;
    let choice = &answer["choices"][0];
    let content = choice["message"]["content"].as_str().unwrap();
    assert!(content.starts_with('{'), "{content}");
    if choice["finish_reason"] == "stop" {
        assert!(serde_json::from_str::<Value>(content).unwrap().is_object());
    }
}

#[tokio::test]
async fn the_answer_is_of_the_grammar() {
    let worker = Running::start();
    let lark = "start: \"<\" tag \">\" body \"</\" tag \">\"\ntag: \"b\" | \"i\"\nbody: WORD (\" \" WORD){0,3}\nWORD: /[a-z]{1,6}/";
    let gbnf = "root ::= \"<\" tag \">\" body \"</\" tag \">\"\ntag ::= \"b\" | \"i\"\nbody ::= word (\" \" word){0,3}\nword ::= [a-z]{1,6}";
    let whole = Regex::new("^<[bi]>[a-z]{1,6}( [a-z]{1,6}){0,3}</[bi]>$").unwrap();
    for grammar in [lark, gbnf] {
        let answers = answers(&worker.client, 10, "guided_grammar", json!(grammar)).await;
        assert!(answers.iter().all(|answer| whole.is_match(answer)), "{answers:?}");
    }
}

#[tokio::test]
async fn a_maximum_cuts_the_answer_off() {
    let worker = Running::start();
    let body = fields("guided_regex", &json!("[a-z]{400}"), &json!({"max_tokens": 5}));
    let (_, answer) = worker.client.post("/v1/completions", &body).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn a_stream_and_several_answers_are_guided_as_well() {
    let worker = Running::start();
    let more = json!({"n": 5, "seed": 1, "frequency_penalty": 1, "top_k": 50, "top_p": 0.9, "logprobs": 2});
    let form = json!("(red|green|blue), (one|two)");
    let whole = Regex::new("^(red|green|blue), (one|two)$").unwrap();
    let (_, answer) = worker
        .client
        .post("/v1/completions", &fields("guided_regex", &form, &more))
        .await;
    for choice in answer["choices"].as_array().unwrap() {
        assert!(whole.is_match(choice["text"].as_str().unwrap()), "{choice}");
    }
    let fields = fields(
        "guided_regex",
        &form,
        &json!({"stream_options": {"continuous_usage_stats": true}}),
    );
    let chunks = worker
        .client
        .stream("/v1/completions", None, fields)
        .await
        .chunks()
        .await;
    assert!(whole.is_match(&text(&chunks)), "{}", text(&chunks));
    assert_eq!(
        chunks.last().unwrap().choices[0].finish_reason.as_deref(),
        Some("stop")
    );
}

#[tokio::test]
async fn what_can_not_be_obeyed_is_refused_with_the_reason() {
    let worker = Running::start();
    let refused = [
        ("guided_choice", json!([]), "at least one text"),
        ("guided_choice", json!(["a", 5]), "list of texts"),
        ("guided_choice", json!("a"), "list of at least one text"),
        ("guided_regex", json!("(a"), "unclosed group"),
        ("guided_regex", json!("(?=a)b"), "look-around"),
        ("guided_regex", json!(r"(a)\1"), "backreferences"),
        ("guided_regex", json!(r"\bfoo\b"), "lookarounds not supported"),
        ("guided_regex", json!("[^\\s\\S]"), "no text matches"),
        ("guided_regex", json!("x".repeat(70_000)), "70000 bytes"),
        ("guided_json", json!("{"), "not JSON"),
        ("guided_json", json!([1]), "must be a JSON schema"),
        ("guided_json", json!({"type": "foo"}), "Invalid type: foo"),
        (
            "guided_json",
            json!({"type": "string", "not": {"const": "a"}}),
            "not supported: [\"not\"]",
        ),
        (
            "guided_json",
            json!({"type": "string", "format": "klingon"}),
            "Unknown format: klingon",
        ),
        (
            "guided_json",
            json!({"$ref": "http://example.com/schema"}),
            "http://example.com/schema",
        ),
        ("guided_json", json!({"$ref": "#/$defs/missing"}), "not found"),
        ("guided_json", json!({"$ref": "#"}), "no text matches"),
        ("guided_json", json!(false), "schema is false"),
        (
            "guided_json",
            json!({"oneOf": [{"type": "string"}, {"minLength": 3}]}),
            "use 'anyOf'",
        ),
        (
            "guided_json",
            json!({"x-guidance": {"lenient": true}}),
            "'x-guidance' is not supported",
        ),
        ("guided_grammar", json!("start: x"), "unknown name: \"x\""),
        ("guided_grammar", json!("start: \"a"), "1("),
        ("guided_grammar", json!(""), "no start rule"),
        ("guided_grammar", json!("start: %json {}"), "%json"),
        ("guided_grammar", json!("root ::= (\"a\""), "line 1: expected ')'"),
        ("guided_grammar", json!({}), "must be a grammar"),
        (
            "response_format",
            json!({"type": "xml"}),
            "'text', 'json_object' or 'json_schema'",
        ),
        (
            "response_format",
            json!({"type": "json_schema"}),
            "json_schema' must be an object",
        ),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "a"}}),
            "must be a JSON schema",
        ),
        (
            "structured_outputs",
            json!({"structural_tag": "a"}),
            "structural_tag",
        ),
        ("guided_whitespace_pattern", json!(" *"), "not supported"),
    ];
    for (name, form, reason) in refused {
        let (status, answer) = worker
            .client
            .post("/v1/completions", &fields(name, &form, &json!({})))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{form}: {answer}");
        assert_eq!(answer["error"]["param"], name, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(reason) && message.len() < 2500,
            "{form}: {message}"
        );
    }
    let both = fields("guided_regex", &json!("a"), &json!({"guided_choice": ["a"]}));
    let (status, answer) = worker.client.post("/v1/completions", &both).await;
    assert_eq!(
        (status, answer["error"]["param"].as_str()),
        (StatusCode::BAD_REQUEST, Some("guided_regex"))
    );
    assert_eq!(
        worker.client.metric("llm_engine_worker:decode_steps_total").await,
        0.0
    );
}

/// Forms that are large, deep or would grow without bound. Each is answered or refused, soon, and the worker lives.
fn hostile() -> Vec<(&'static str, Value)> {
    let chain = |link: fn(usize) -> Value, length: usize| {
        let mut definitions: serde_json::Map<String, Value> = (0..length)
            .map(|number| (format!("a{number}"), link(number + 1)))
            .collect();
        definitions.insert(
            format!("a{length}"),
            json!({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}),
        );
        json!({"$ref": "#/$defs/a0", "$defs": definitions})
    };
    let deep = (0..60).fold(
        json!({"type": "boolean"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    );
    let names: Vec<String> = (0..1000).map(|number| format!("k{number}")).collect();
    let objects: Vec<Value> = (0..180).map(|least| json!({"minProperties": least})).collect();
    let optional: serde_json::Map<String, Value> = (0..1500)
        .map(|n| (format!("k{n}"), json!({"type": "integer"})))
        .collect();
    let words: Vec<String> = (0..6000).map(|number| format!("w{number}")).collect();
    let rules = |upper: bool| -> String {
        let name = if upper { "A" } else { "a" };
        let rules: Vec<String> = (0..40)
            .map(|n| format!("{name}{n}: {name}{0} {name}{0}", n + 1))
            .collect();
        format!("start: {name}0\n{}\n{name}40: \"x\"", rules.join("\n"))
    };
    vec![
        (
            "guided_regex",
            json!(format!("{}a{}", "(?:".repeat(10_000), ")".repeat(10_000))),
        ),
        ("guided_regex", json!("(".repeat(60_000))),
        ("guided_regex", json!("(a|b)".repeat(12_000))),
        ("guided_regex", json!("[a-z]*".repeat(2_000))),
        ("guided_regex", json!("(((a{1,1000}){1,1000}){1,1000}){1,1000}")),
        ("guided_regex", json!("(.*a.{12}){1,200}b")),
        ("guided_regex", json!(".*[a-z].{40}")),
        ("guided_regex", json!(r"\p{L}{1,1000}\p{Lu}\p{L}{20}")),
        ("guided_regex", json!("a{2000000000}")),
        ("guided_choice", json!(words)),
        (
            "guided_grammar",
            json!(format!("start: {}\"a\"{}", "(".repeat(5_000), ")".repeat(5_000))),
        ),
        ("guided_grammar", json!(rules(false))),
        ("guided_grammar", json!(rules(true))),
        (
            "guided_grammar",
            json!("start: a\na: a a a a | /[a-z]/ | /[a-z]+/ | "),
        ),
        ("guided_grammar", json!("start: a{1000000}\na: \"x\"")),
        (
            "guided_grammar",
            json!(format!(
                "start: {}",
                words
                    .iter()
                    .map(|word| format!("\"{word}\""))
                    .collect::<Vec<_>>()
                    .join(" | ")
            )),
        ),
        (
            "guided_grammar",
            json!(format!("root ::= {}\"a\"", "(".repeat(60_000))),
        ),
        ("guided_json", deep),
        (
            "guided_json",
            chain(|n| json!({"$ref": format!("#/$defs/a{n}")}), 1500),
        ),
        (
            "guided_json",
            chain(
                |n| json!({"properties": {"x": {"$ref": format!("#/$defs/a{n}")}}}),
                1000,
            ),
        ),
        (
            "guided_json",
            chain(
                |n| json!({"allOf": [{"$ref": format!("#/$defs/a{n}")}, {"$ref": format!("#/$defs/a{n}")}]}),
                40,
            ),
        ),
        (
            "guided_json",
            chain(
                |n| json!({"anyOf": [{"$ref": format!("#/$defs/a{n}")}, {"$ref": format!("#/$defs/a{n}")}]}),
                40,
            ),
        ),
        (
            "guided_json",
            json!({"allOf": [{"required": names}, {"anyOf": objects}, {"anyOf": objects}]}),
        ),
        ("guided_json", json!({"type": "object", "properties": optional})),
        ("guided_json", json!({"enum": words})),
        (
            "guided_json",
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 100_000_000}),
        ),
        (
            "guided_json",
            json!({"type": "string", "minLength": 1_000_000, "pattern": "a"}),
        ),
        (
            "guided_json",
            json!({"type": "integer", "multipleOf": 982_451_653}),
        ),
        ("guided_json", json!({"type": "number", "multipleOf": 1e-300})),
        ("guided_json", json!({"type": "é".repeat(90)})),
    ]
}

#[tokio::test]
async fn hostile_forms_hurt_nobody() {
    let worker = Running::start();
    let client = &worker.client;
    let endless = json!({"prompt": "Once", "max_tokens": 200, "ignore_eos": true});
    let mut other = client.stream("/v1/completions", Some("other"), endless).await;
    other.next_chunk().await;
    for (name, form) in hostile() {
        let began = Instant::now();
        let fields = fields(name, &form, &json!({"max_tokens": 3}));
        let (status, answer) = client.post("/v1/completions", &fields).await;
        let shown: String = form.to_string().chars().take(60).collect();
        match status {
            StatusCode::OK => assert!(
                answer["choices"][0]["finish_reason"].is_string(),
                "{shown}: {answer}"
            ),
            StatusCode::BAD_REQUEST => assert_eq!(answer["error"]["param"], name, "{shown}: {answer}"),
            // A grammar that grows too much while it is followed.
            _ => assert!(
                answer["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("too complex"),
                "{shown}: {answer}"
            ),
        }
        assert!(
            began.elapsed().as_secs() < 20,
            "{shown} took {:?}",
            began.elapsed()
        );
    }
    other.next_chunk().await;
    client.cancel("other").await.unwrap();
    let answers = answers(client, 2, "guided_choice", json!(["a"])).await;
    assert_eq!(answers, ["a", "a"]);
}
