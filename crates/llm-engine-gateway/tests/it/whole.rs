//! Answers that are not streamed: passed through as they came.

use llm_engine_gateway::{AnswerBody, Failure};
use llm_engine_wire::openai::Request;
use scripted_upstream::freeze;
use serde_json::{Value, json};

use crate::harness::{World, arrival, broken, failed, request, setup, spent};
use crate::raw_upstream::RawUpstream;

fn whole(answer: AnswerBody) -> Value {
    match answer {
        AnswerBody::Whole(json) => serde_json::from_str(&json).unwrap(),
        AnswerBody::Stream(stream) => panic!("{stream:?}"),
    }
}

fn plain() -> Request {
    request(json!({}))
}

/// What becomes of this answer, and the world after it.
async fn answered(body: Value) -> (Value, World) {
    let mut world = World::start().await;
    let (caller, route, request) = (world.caller("alice"), world.route(), plain());
    let arrival = arrival("r-1");
    let (answer, ()) = tokio::join!(
        world.gateway.complete(&caller, &route, &request, &arrival),
        async {
            world.upstream.next().await.answer(200, &[], body);
        }
    );
    (whole(answer.unwrap()), world)
}

fn answer_with(more: Value) -> Value {
    let mut answer = json!({
        "id": "x", "object": "text_completion", "created": 1, "model": "up", "system_fingerprint": "f",
        "choices": [{ "index": 0, "text": "one two three four five six seven eight", "logprobs": null, "more": [1] }],
    });
    answer
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    answer
}

#[tokio::test]
async fn it_is_passed_on_under_the_public_name_with_every_field_in_its_place_and_charged_its_usage() {
    let _frozen = freeze();
    let usage =
        json!({ "usage": { "prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13, "x": {} } });
    let body = answer_with(usage);
    let (answer, mut world) = answered(body.clone()).await;
    assert_eq!(answer.to_string(), body.to_string().replace("\"up\"", "\"m\""));
    assert_eq!(world.spent(), spent(1, 5, 8), "settled before it is handed over");
    world.assert_place_is_free().await;
}

#[tokio::test]
async fn it_is_not_asked_for_as_a_stream() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let exchange = world.abandon(&plain()).await;
    assert_eq!(
        exchange.body,
        json!({ "model": "up", "prompt": "123456789", "max_tokens": 20 })
    );
    assert_eq!(exchange.path, "/v1/completions");
}

#[tokio::test]
async fn without_a_usage_the_prompt_is_charged_as_estimated() {
    let _frozen = freeze();
    for more in [
        json!({}),
        json!({ "usage": null }),
        json!({ "usage": "x" }),
        json!({ "usage": {} }),
    ] {
        let (_, mut world) = answered(answer_with(more)).await;
        let charged = world.spent();
        assert_eq!(
            (charged.requests, charged.input_tokens, charged.running),
            (1, 3, 0)
        );
        world.assert_place_is_free().await;
    }
}

#[tokio::test]
async fn without_a_usage_what_was_generated_is_not_free() {
    let _frozen = freeze();
    let (_, world) = answered(answer_with(json!({}))).await;
    // Eight words in 39 bytes, of at most 20 tokens.
    let charged = world.spent().output_tokens;
    assert!((5..=20).contains(&charged), "charged {charged}");
}

#[tokio::test]
async fn what_is_no_json_object_is_a_failure_that_charges_the_request() {
    let _frozen = freeze();
    let no_object = "not a JSON object";
    for (content_type, body, words) in [
        ("text/html", "<html>Welcome</html>", "a page for people"),
        ("application/json", "[]", no_object),
        ("application/json", "{\"id\":", no_object),
        ("application/json", "", no_object),
        ("text/event-stream", "data: {}\n\n", "it streamed"),
    ] {
        let raw = RawUpstream::start().await;
        let world = World::with(|world| *world = setup(&raw.url())).await;
        let request = plain();
        let (answer, ()) = tokio::join!(world.complete(&request), async {
            raw.next().await.answer(content_type, body).await;
        });
        assert!(broken(failed(answer)).contains(words), "{body:?}");
        assert_eq!(world.spent(), spent(1, 0, 0));
        assert_eq!(world.route().running(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_it_is_a_failure_that_charges_the_request() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let failure = world
        .failure_of(&plain(), |exchange| {
            let stream = exchange.stream();
            stream.raw("{\"id\":");
            stream.cut();
        })
        .await;
    assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
    assert_eq!(world.spent(), spent(1, 0, 0));
    world.assert_place_is_free().await;
}
