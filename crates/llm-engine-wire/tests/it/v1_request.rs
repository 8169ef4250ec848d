use llm_engine_wire::v1::{CompletionRequest, Guided, RequestError};
use llm_engine_wire::validation::{Body, Problem};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::json::{any_fields, any_text, any_value};

const FIELDS: &[&str] = &[
    "prompt",
    "max_new_tokens",
    "temperature",
    "stop_sequences",
    "return_token_log_probs",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "include_stop_str_in_output",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "skip_special_tokens",
];

/// A good request with more fields.
fn with(more: &Value) -> Value {
    let mut body = json!({ "prompt": "p", "max_new_tokens": 5, "temperature": 0.2 });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn read(more: &Value) -> Result<CompletionRequest, RequestError> {
    CompletionRequest::read(Some("m"), &Body::Json(with(more)))
}

fn problems(model: Option<&str>, body: Body) -> Vec<Problem> {
    match CompletionRequest::read(model, &body) {
        Err(RequestError::Invalid(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

/// The names of the fields that the problems are about.
fn places(problems: &[Problem]) -> Vec<String> {
    let place = |problem: &Problem| {
        let loc = serde_json::to_value(&problem.loc).unwrap();
        loc.as_array()
            .unwrap()
            .iter()
            .map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(".")
    };
    problems.iter().map(place).collect()
}

proptest! {
    #[test]
    fn no_fields_make_it_panic(fields in any_fields(FIELDS), model in prop::option::of(any_text())) {
        match CompletionRequest::read(model.as_deref(), &Body::Json(fields.into())) {
            Ok(request) => {
                prop_assert!(request.max_new_tokens >= 1);
                prop_assert!((0.0..=1.0).contains(&request.temperature));
                prop_assert!(request.top_p.is_none_or(|top_p| top_p > 0.0 && top_p <= 1.0));
                prop_assert!(request.top_k.is_none_or(|top_k| top_k == -1 || top_k >= 1));
                for penalty in [request.presence_penalty, request.frequency_penalty].into_iter().flatten() {
                    prop_assert!((0.0..=2.0).contains(&penalty));
                }
            }
            Err(RequestError::Invalid(problems)) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(serde_json::to_string(&problems).is_ok());
            }
            Err(RequestError::Refused(words)) => prop_assert!(!words.is_empty()),
        }
    }

    #[test]
    fn no_body_of_any_content_type_makes_it_panic(
        content_type in prop::option::of(prop_oneof![
            any::<String>(),
            Just("application/json".to_owned()),
            Just("application/x+json; charset=latin1".to_owned()),
        ]),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            any_value().prop_map(|value| value.to_string().into_bytes()),
            // JSON with one byte that is wrong.
            (any_value(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, index, byte)| {
                let mut bytes = value.to_string().into_bytes();
                let index = index.index(bytes.len());
                bytes[index] = byte;
                bytes
            }),
        ],
    ) {
        let body = Body::read(content_type.as_deref(), &bytes);
        let read = match body {
            Ok(body) => CompletionRequest::read(Some("m"), &body).map(|_| ()),
            Err(problem) => Err(RequestError::Invalid(vec![*problem])),
        };
        if let Err(RequestError::Invalid(problems)) = read {
            prop_assert!(serde_json::to_string(&problems).is_ok());
        }
    }

    #[test]
    fn the_problems_are_in_the_order_of_the_fields_whatever_order_was_sent(fields in any_fields(FIELDS)) {
        let Err(RequestError::Invalid(problems)) = CompletionRequest::read(None, &Body::Json(fields.into())) else {
            return Err(TestCaseError::fail("the query parameter is missing"));
        };
        let places = places(&problems);
        prop_assert_eq!(&places[0], "query.model_endpoint_name");
        let order: Vec<usize> = places[1..]
            .iter()
            .map(|place| {
                let name = place.split('.').nth(1).unwrap();
                FIELDS.iter().position(|field| *field == name).unwrap()
            })
            .collect();
        prop_assert!(order.is_sorted(), "{:?}", places);
    }
}

#[test]
fn what_is_absent_or_null_has_its_default() {
    let expected = CompletionRequest {
        model: "m".to_owned(),
        prompt: "p".to_owned(),
        max_new_tokens: 5,
        temperature: 0.2,
        stop_sequences: Vec::new(),
        return_token_log_probs: false,
        presence_penalty: None,
        frequency_penalty: None,
        top_k: None,
        top_p: None,
        include_stop_str_in_output: false,
        guided: None,
        skip_special_tokens: true,
    };
    assert_eq!(read(&json!({})), Ok(expected.clone()));
    let nulls: serde_json::Map<_, _> = FIELDS[3..]
        .iter()
        .map(|name| ((*name).to_owned(), Value::Null))
        .collect();
    assert_eq!(read(&nulls.into()), Ok(expected.clone()));
    assert_eq!(
        read(&json!({ "extra": 1, "Prompt": 2, "model": 3 })),
        Ok(expected)
    );
}

#[test]
fn every_field_is_read_also_in_its_lax_form() {
    let request = read(&json!({
        "prompt": "q", "max_new_tokens": "7", "temperature": true, "stop_sequences": ["a", ""],
        "return_token_log_probs": "yes", "presence_penalty": "1.5", "frequency_penalty": 2, "top_k": 3.0,
        "top_p": "1e-1", "include_stop_str_in_output": 1, "guided_regex": "[a-z]+", "skip_special_tokens": "off",
    }));
    let expected = CompletionRequest {
        model: "m".to_owned(),
        prompt: "q".to_owned(),
        max_new_tokens: 7,
        temperature: 1.0,
        stop_sequences: vec!["a".to_owned(), String::new()],
        return_token_log_probs: true,
        presence_penalty: Some(1.5),
        frequency_penalty: Some(2.0),
        top_k: Some(3),
        top_p: Some(0.1),
        include_stop_str_in_output: true,
        guided: Some(Guided::Regex("[a-z]+".to_owned())),
        skip_special_tokens: false,
    };
    assert_eq!(request, Ok(expected));
}

#[test]
fn each_form_that_an_answer_must_have_is_read() {
    let guided = |more: Value| read(&more).unwrap().guided.unwrap();
    let schema = json!({ "type": "object" });
    assert_eq!(
        guided(json!({ "guided_json": schema })),
        Guided::Json(schema.as_object().unwrap().clone())
    );
    assert_eq!(
        guided(json!({ "guided_choice": ["a", "b"] })),
        Guided::Choice(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(
        guided(json!({ "guided_grammar": "g" })),
        Guided::Grammar("g".to_owned())
    );
}

#[test]
fn problems_of_the_query_come_before_those_of_the_body() {
    for body in [Body::Empty, Body::Text("x".to_owned()), Body::Json(json!([]))] {
        assert_eq!(
            places(&problems(None, body)),
            ["query.model_endpoint_name", "body"]
        );
    }
    assert_eq!(
        places(&problems(None, Body::Json(json!({ "temperature": 2 })))),
        [
            "query.model_endpoint_name",
            "body.prompt",
            "body.max_new_tokens",
            "body.temperature"
        ]
    );
    assert_eq!(
        places(&problems(None, Body::Json(with(&json!({}))))),
        ["query.model_endpoint_name"]
    );
}

#[test]
fn a_body_that_is_nested_too_deeply_is_no_json_and_exhausts_nothing() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "")] {
        for (depth, whole) in [(200_000, ""), (200_000, close)] {
            let body = format!("{}1{}", open.repeat(depth), whole.repeat(depth));
            let problem = Body::read(Some("application/json"), body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind, "json_invalid");
        }
    }
}

#[test]
fn a_problem_in_a_list_names_the_position() {
    let found = problems(
        Some("m"),
        Body::Json(with(&json!({ "guided_choice": ["a", 1, null] }))),
    );
    assert_eq!(places(&found), ["body.guided_choice.1", "body.guided_choice.2"]);
    assert_eq!(found[1].input, Value::Null);
}

#[test]
fn what_the_types_allow_and_the_public_servers_refuse_is_refused_in_their_words() {
    let refused = |more: Value| match read(&more) {
        Err(RequestError::Refused(words)) => words,
        other => panic!("{more} gives {other:?}"),
    };
    let greedy = "top_k and top_p can't be enabled when temperature is 0.";
    assert_eq!(refused(json!({ "temperature": 0, "top_p": 0.5 })), greedy);
    assert_eq!(refused(json!({ "temperature": 0, "top_k": 1 })), greedy);
    assert_eq!(
        refused(json!({ "top_k": "0" })),
        "top_k needs to be strictly positive, or set it to be -1 / None to disable top_k."
    );
    let one = "Only one of guided_json, guided_choice, guided_regex, guided_grammar can be enabled.";
    assert_eq!(refused(json!({ "guided_json": {}, "guided_grammar": "" })), one);
    for max_new_tokens in [json!(0), json!(-1), json!("0"), json!(false), json!(i64::MIN)] {
        refused(json!({ "max_new_tokens": max_new_tokens }));
    }
    // What is wrong by type is told first.
    let both = with(&json!({ "max_new_tokens": 0, "top_p": 2 }));
    assert_eq!(places(&problems(Some("m"), Body::Json(both))), ["body.top_p"]);
}
