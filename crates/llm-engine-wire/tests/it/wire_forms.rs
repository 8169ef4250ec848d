//! How messages look as JSON, where programs of others read it.

use llm_engine_wire::openai::{DONE, ErrorBody, Kind, Model, ModelList};
use llm_engine_wire::v1::{Endpoint, EndpointStatus, Frame, StreamError, StreamErrorContent};
use llm_engine_wire::validation::{Loc, Problem};
use llm_engine_wire::worker::{TokenizeRequest, TokenizeResponse};
use serde::Serialize;
use serde_json::{Value, json};

fn json_of(message: &impl Serialize) -> Value {
    serde_json::to_value(message).unwrap()
}

#[test]
fn an_error_of_openai_s_dialect_is_one_object() {
    let error = ErrorBody::invalid_request("'n' is 0".to_owned(), Some("n"), "invalid_request");
    assert_eq!(
        json_of(&error),
        json!({ "error": {
            "message": "'n' is 0", "type": "invalid_request_error", "param": "n", "code": "invalid_request",
        } })
    );
}

#[test]
fn errors_of_other_servers_are_read_with_numbers_for_codes_and_with_members_missing() {
    for (text, code) in [
        (
            json!({ "error": { "message": "m", "type": "BadRequestError", "param": null, "code": 400 } }),
            json!(400),
        ),
        (json!({ "error": { "message": "m" } }), Value::Null),
        (
            json!({ "error": { "message": "m", "code": "x", "more": 1 }, "detail": "d" }),
            json!("x"),
        ),
    ] {
        let body: ErrorBody = serde_json::from_value(text).unwrap();
        assert_eq!((body.error.message.as_str(), body.error.code), ("m", code));
    }
}

#[test]
fn an_error_frame_has_no_output() {
    let content = StreamErrorContent {
        error: "e".to_owned(),
        timestamp: "2026-01-01T00:00:00Z".to_owned(),
    };
    let frame = Frame {
        request_id: "r".to_owned(),
        output: None,
        error: Some(StreamError {
            status_code: 502,
            content,
        }),
    };
    assert_eq!(
        json_of(&frame),
        json!({
            "request_id": "r", "output": null,
            "error": { "status_code": 502, "content": { "error": "e", "timestamp": "2026-01-01T00:00:00Z" } },
        })
    );
}

#[test]
fn a_problem_shows_its_bound_only_where_there_is_one() {
    let problem = Problem::missing(vec![Loc::Name("body"), Loc::Name("prompt")], json!({}));
    assert_eq!(
        serde_json::to_string(&problem).unwrap(),
        r#"{"type":"missing","loc":["body","prompt"],"msg":"Field required","input":{}}"#
    );
}

#[test]
fn an_endpoint_shows_its_nulls_and_a_status_in_capitals() {
    let endpoint = Endpoint {
        id: "m".to_owned(),
        name: "m".to_owned(),
        model_name: "m".to_owned(),
        source: "hugging_face".to_owned(),
        status: EndpointStatus::UpdateInProgress,
        inference_framework: "vllm".to_owned(),
        inference_framework_image_tag: None,
        num_shards: None,
        quantize: None,
        checkpoint_path: None,
        chat_template_override: None,
        spec: None,
    };
    let shown = json_of(&endpoint);
    assert_eq!(shown["status"], "UPDATE_IN_PROGRESS");
    assert_eq!(shown.as_object().unwrap().len(), 12);
    assert_eq!(shown["spec"], Value::Null);
    assert_eq!(json_of(&EndpointStatus::Ready), "READY");
    assert_eq!(json_of(&EndpointStatus::UpdateFailed), "UPDATE_FAILED");
}

#[test]
fn a_model_list_has_openai_s_form() {
    let model = Model {
        id: "m".to_owned(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "o".to_owned(),
    };
    let list = ModelList {
        object: "list".to_owned(),
        data: vec![model],
    };
    assert_eq!(
        json_of(&list),
        json!({ "object": "list", "data": [{ "id": "m", "object": "model", "created": 0, "owned_by": "o" }] })
    );
}

#[test]
fn a_prompt_or_messages_are_asked_to_be_tokenized_and_the_tokens_may_be_left_out() {
    let question = TokenizeRequest {
        model: "m".to_owned(),
        prompt: Some("p".into()),
        messages: None,
    };
    assert_eq!(json_of(&question), json!({ "model": "m", "prompt": "p" }));
    let answer: TokenizeResponse = serde_json::from_value(json!({ "count": 3, "max_model_len": 9 })).unwrap();
    assert_eq!((answer.count, answer.tokens.len()), (3, 0));
}

#[test]
fn routes_and_the_end_of_a_stream_have_openai_s_names() {
    assert_eq!(
        (Kind::Chat.path(), Kind::Completion.path()),
        ("/chat/completions", "/completions")
    );
    assert_eq!(DONE, "[DONE]");
}
