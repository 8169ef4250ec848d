use hyper::StatusCode;
use scripted_upstream::Upstream;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, chat};

const CHAT: &str = "/v1/chat/completions";

fn events(answer: &Answer) -> Vec<Value> {
    let events = answer.events();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap())
        .collect()
}

#[tokio::test]
async fn a_stream_passes_through_under_the_public_name_and_without_a_usage_that_was_not_asked_for() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(7, &["The", " sky"])).await;
    let server = Server::start(&upstream, "").await;
    let mut body = chat();
    body["stream"] = true.into();
    let chunks = events(&Answer::read(server.post(CHAT, &body).await).await);
    let texts: Vec<&str> = chunks
        .iter()
        .map(|c| c["choices"][0]["delta"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["The", " sky", ""]);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["model"] == "m" && chunk.get("usage").is_none())
    );

    body["stream_options"] = json!({ "include_usage": true });
    let chunks = events(&Answer::read(server.post(CHAT, &body).await).await);
    let usage = &chunks[chunks.len() - 1];
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"],
        json!({ "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9 })
    );
}

#[tokio::test]
async fn fields_that_we_do_not_act_on_reach_the_upstream_untouched_and_its_answer_the_caller() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let mut body = chat();
    body["tools"] = json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
    body["logit_bias"] = json!({ "1": 5 });
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "c1" }] });
    let upstream_answer = json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "upstream", "system_fingerprint": "f",
        "choices": [{ "index": 0, "message": message, "finish_reason": "tool_calls" }],
        "usage": { "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13 },
    });
    let (answer, seen) = tokio::join!(
        async { Answer::read(server.post(CHAT, &body).await).await },
        async {
            let exchange = upstream.next().await;
            let seen = exchange.body.clone();
            exchange.answer(200, &[], upstream_answer.clone());
            seen
        }
    );
    assert_eq!(
        (&seen["tools"], &seen["logit_bias"]),
        (&body["tools"], &body["logit_bias"])
    );
    let mut expected = upstream_answer;
    expected["model"] = "m".into();
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn errors_are_openai_error_objects() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "").await;
    let error = async |key: &str, body: Value| {
        let answer = Answer::read(server.post_as(key, CHAT, &body).await).await;
        assert!(answer.json().get("detail").is_none());
        (answer.status.as_u16(), answer.json()["error"].clone())
    };
    let (status, body) = error("nobody", chat()).await;
    assert_eq!((status, &body["code"]), (401, &json!("invalid_api_key")));
    let mut unknown = chat();
    unknown["model"] = "nope".into();
    let (status, body) = error("k", unknown).await;
    assert_eq!(
        (status, &body["code"], &body["message"]),
        (404, &json!("model_not_found"), &json!("there is no model 'nope'"))
    );
    let mut hot = chat();
    hot["temperature"] = 3.into();
    let (status, body) = error("k", hot).await;
    assert_eq!((status, &body["param"]), (400, &json!("temperature")));
    assert_eq!(body["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_error_event_and_no_done() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let mut body = chat();
    body["stream"] = true.into();
    let (answer, ()) = tokio::join!(
        async { Answer::read(server.post(CHAT, &body).await).await },
        async {
            let stream = upstream.next().await.stream();
            stream.text("a");
            stream.event(&json!({ "error": { "message": "out of memory" } }));
        }
    );
    let events = answer.events();
    let last: Value = serde_json::from_str(events[events.len() - 1]).unwrap();
    assert_eq!(last["error"]["code"], "upstream_failed");
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap()
            .contains("out of memory")
    );
}

#[tokio::test]
async fn models_are_listed_with_their_aliases() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "aliases = ['llama-7b']").await;
    let list = server.get("/v1/models").await.json();
    let names: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["m", "llama-7b"]);
    let refused = server.send("GET", "/v1/models", &[], None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_model_is_described_under_each_of_its_names() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "aliases = ['org/m-7b']").await;
    for (name, target) in [
        ("m", "/v1/models/m"),
        ("org/m-7b", "/v1/models/org/m-7b"),
        ("org/m-7b", "/v1/models/org%2Fm-7b"),
    ] {
        let model = server.get(target).await;
        assert_eq!(model.status, StatusCode::OK, "{target}");
        let expected = json!({ "id": name, "object": "model", "created": 0, "owned_by": "llm-engine" });
        assert_eq!(model.json(), expected);
    }
    let unknown = server.get("/v1/models/nope").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    let refused = server.send("GET", "/v1/models/m", &[], None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}
