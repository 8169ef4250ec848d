//! What a caller of OpenAI's dialect sees of the deployment's chunks.

use llm_engine_wire::openai::Request;
use scripted_upstream::freeze;
use serde_json::{Value, json};

use crate::harness::{World, drain, request};

/// What is seen of these chunks.
async fn seen(request: &Request, chunks: &[Value]) -> Vec<Value> {
    let mut world = World::start().await;
    let (answer, stream) = world
        .begin_with(request, |stream| {
            for chunk in chunks {
                stream.event(chunk);
            }
        })
        .await;
    stream.done();
    let events = drain(answer).await.unwrap();
    events
        .into_iter()
        .filter_map(|event| event.visible)
        .map(|chunk| serde_json::from_str(&chunk).unwrap())
        .collect()
}

fn asking(options: Value) -> Request {
    request(json!({ "stream": true, "stream_options": options }))
}

fn usage() -> Value {
    json!({ "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "prompt_tokens_details": null })
}

fn with(mut chunk: Value, name: &str, value: Value) -> Value {
    chunk[name] = value;
    chunk
}

#[tokio::test]
async fn a_chunk_is_passed_on_with_all_of_its_fields_under_the_public_name() {
    let _frozen = freeze();
    let chunk = json!({
        "x": [1], "id": "c", "model": "up", "service_tier": null,
        "choices": [{ "index": 0, "text": "a", "y": {}, "finish_reason": null }], "system_fingerprint": "f",
    });
    let seen = seen(&asking(json!({})), std::slice::from_ref(&chunk)).await;
    assert_eq!(seen[0].to_string(), chunk.to_string().replace("\"up\"", "\"m\""));
}

#[tokio::test]
async fn a_chunk_over_several_lines_is_passed_on_in_one() {
    let _frozen = freeze();
    for more in ["", "\ndata: ,\"usage\": null"] {
        let mut world = World::start().await;
        let (answer, stream) = world
            .begin_with(&asking(json!({})), |stream| {
                stream.raw(&format!(
                    "data: {{\"model\":\"up\",\"choices\":\ndata: [{{\"index\":0,\ndata: \"text\":\"a\"}}]{more}}}\n\n"
                ));
            })
            .await;
        stream.done();
        let events = drain(answer).await.unwrap();
        let visible = events[0].visible.as_deref().unwrap();
        assert!(!visible.contains(['\n', '\r']), "{visible}");
        let chunk: Value = serde_json::from_str(visible).unwrap();
        assert_eq!(
            chunk,
            json!({ "model": "m", "choices": [{ "index": 0, "text": "a" }] })
        );
    }
}

#[tokio::test]
async fn a_last_chunk_with_the_usage_is_seen_by_who_asked_for_it() {
    let _frozen = freeze();
    let chunks = [
        json!({ "choices": [{ "index": 0, "text": "a" }] }),
        json!({ "choices": [], "usage": usage() }),
    ];
    for options in [json!({}), json!(null), json!({ "include_usage": false })] {
        assert_eq!(seen(&asking(options), &chunks).await.len(), 1);
    }
    let both = seen(&asking(json!({ "include_usage": true })), &chunks).await;
    assert_eq!(both[1], with(chunks[1].clone(), "model", "m".into()));
}

#[tokio::test]
async fn a_usage_in_every_chunk_is_seen_by_who_asked_for_it() {
    let _frozen = freeze();
    let chunk = json!({ "choices": [{ "index": 0, "text": "a" }], "usage": usage() });
    let without = seen(
        &asking(json!({ "include_usage": true })),
        std::slice::from_ref(&chunk),
    )
    .await;
    assert_eq!(without, [json!({ "choices": chunk["choices"], "model": "m" })]);
    let continuous = json!({ "include_usage": true, "continuous_usage_stats": true });
    let with_usage = seen(&asking(continuous), std::slice::from_ref(&chunk)).await;
    assert_eq!(with_usage, [with(chunk, "model", "m".into())]);
}

#[tokio::test]
async fn a_first_chunk_with_the_role_and_a_last_one_with_the_reason_are_seen() {
    let _frozen = freeze();
    let choice = |delta: Value, reason: Value| json!({ "index": 0, "delta": delta, "finish_reason": reason });
    let chunks = [
        json!({ "choices": [choice(json!({ "role": "assistant", "content": "" }), Value::Null)], "usage": usage() }),
        json!({ "choices": [choice(json!({}), json!("stop"))], "usage": usage() }),
    ];
    assert_eq!(seen(&asking(json!({})), &chunks).await.len(), 2);
}

#[tokio::test]
async fn what_we_do_not_act_on_is_seen_also_in_a_chunk_with_a_usage_that_nobody_asked_for() {
    let _frozen = freeze();
    for delta in [
        json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{" } }] }),
        json!({ "reasoning_content": "hm" }),
        json!({ "content": null, "refusal": "no" }),
    ] {
        let chunk = json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
        let expected = with(chunk.clone(), "model", "m".into());
        let plain = seen(&asking(json!({})), std::slice::from_ref(&chunk)).await;
        assert_eq!(plain, std::slice::from_ref(&expected));
        let counted = with(chunk, "usage", usage());
        assert_eq!(seen(&asking(json!({})), &[counted]).await, [expected]);
    }
}
