use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::advance;

use crate::harness::{Answer, STREAM, SYNC, Server, piece, prompt};

#[tokio::test]
async fn a_stream_is_frames_of_which_the_last_alone_is_finished_and_counts_the_prompt() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(7, &["The", " sky"])).await;
    let server = Server::start(&upstream, "").await;
    let answer = Answer::read(server.post(STREAM, &prompt(5)).await).await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert!(answer.body.ends_with("\r\n\r\n"));
    let frames: Vec<Value> = answer
        .events()
        .iter()
        .map(|frame| serde_json::from_str(frame).unwrap())
        .collect();
    let request_id = answer.header("x-request-id").unwrap();
    let frame = |text: &str, finished: bool, prompt: Value, completion: u64| {
        json!({
            "request_id": request_id,
            "output": {
                "text": text, "finished": finished, "num_prompt_tokens": prompt, "num_completion_tokens": completion,
                "token": null,
            },
            "error": null,
        })
    };
    assert_eq!(
        frames,
        [
            frame("The", false, Value::Null, 1),
            frame(" sky", false, Value::Null, 2),
            frame("", true, json!(7), 2)
        ]
    );
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_an_error_frame_and_the_end() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (answer, ()) = tokio::join!(
        async { Answer::read(server.post(STREAM, &prompt(5)).await).await },
        async {
            let stream = upstream.next().await.stream();
            stream.text("a");
            server.settle().await;
            stream.cut();
        }
    );
    assert_eq!(answer.status, StatusCode::OK);
    let events = answer.events();
    let last: Value = serde_json::from_str(events[events.len() - 1]).unwrap();
    assert_eq!(last["output"], Value::Null);
    assert_eq!(last["error"]["status_code"], 502);
    assert!(
        last["error"]["content"]["error"]
            .as_str()
            .unwrap()
            .starts_with("the model server failed")
    );
    assert!(last["error"]["content"]["timestamp"].is_string());
    assert!(!answer.body.contains("[DONE]"));
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_a_status() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    for target in [SYNC, STREAM] {
        let (answer, ()) = tokio::join!(
            async { Answer::read(server.post(target, &prompt(5)).await).await },
            async {
                upstream
                    .next()
                    .await
                    .answer(500, &[], json!({ "error": { "message": "out of memory" } }));
            }
        );
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        let request_id = answer.header("x-request-id").unwrap();
        assert_eq!(
            answer.json()["detail"],
            format!("Upstream service error for request_id {request_id}")
        );
        assert_eq!(answer.json()["error"]["code"], "upstream_failed");
    }
}

#[tokio::test]
async fn a_silent_upstream_is_given_up_after_its_time() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (answer, ()) = tokio::join!(server.complete(), async {
        let _held = upstream.next().await;
        server.settle().await;
        advance(Duration::from_secs(121)).await;
        server.settle().await;
    });
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["error"]["code"], "upstream_timeout");
}

#[tokio::test]
async fn an_upstream_that_limits_is_a_429_with_its_hint() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (answer, ()) = tokio::join!(server.complete(), async {
        upstream
            .next()
            .await
            .answer(429, &[("retry-after", "2")], json!({}));
    });
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.json()["error"]["code"], "upstream_limited");
    assert_eq!(answer.retry_after(), Duration::from_secs(2));
}

#[tokio::test]
async fn an_upstream_that_rejects_the_request_is_a_400_in_its_own_words() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let error = json!({ "error": { "message": "too long", "type": "x", "code": "context_length_exceeded" } });
    let (answer, ()) = tokio::join!(server.complete(), async {
        upstream.next().await.answer(400, &[], error);
    });
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["detail"], "too long");
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn an_unknown_model_is_a_404_in_the_words_of_each_route() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "").await;
    let post = async |route: &str| {
        let target = format!("/v1/llm/{route}?model_endpoint_name=nope");
        Answer::read(server.post(&target, &prompt(5)).await).await
    };
    let sync = post("completions-sync").await;
    assert_eq!(
        (sync.status.as_u16(), &sync.json()["detail"]),
        (404, &json!("The specified endpoint could not be found."))
    );
    let stream = post("completions-stream").await;
    assert_eq!(
        (stream.status.as_u16(), &stream.json()["detail"]),
        (404, &json!("Model endpoint nope not found."))
    );
}

#[tokio::test]
async fn combinations_that_make_no_sense_are_refused_in_the_public_words() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "").await;
    let detail = async |more: Value| {
        let mut body = prompt(5);
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = Answer::read(server.post(SYNC, &body).await).await;
        (
            answer.status.as_u16(),
            answer.json()["detail"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let greedy = "top_k and top_p can't be enabled when temperature is 0.";
    assert_eq!(
        detail(json!({ "temperature": 0, "top_k": 5 })).await,
        (400, greedy.to_owned())
    );
    let zero = "top_k needs to be strictly positive, or set it to be -1 / None to disable top_k.";
    assert_eq!(detail(json!({ "top_k": 0 })).await, (400, zero.to_owned()));
    let guided = "Only one of guided_json, guided_choice, guided_regex, guided_grammar can be enabled.";
    let two = json!({ "guided_regex": "a", "guided_choice": ["a"] });
    assert_eq!(detail(two).await, (400, guided.to_owned()));
    assert_eq!(
        detail(json!({ "temperature": 0, "top_k": -1, "top_p": 1.0 })).await,
        (200, String::new())
    );
}

#[tokio::test]
async fn prompts_reach_the_upstream_as_they_are_or_as_a_chat() {
    let mut upstream = Upstream::start().await;
    let plain = Server::start(upstream.url(), "").await;
    let (_, exchange) = tokio::join!(plain.complete(), async {
        let exchange = upstream.next().await;
        let seen = (exchange.path.clone(), exchange.body.clone());
        exchange.answer_words(1, &["a"]);
        seen
    });
    assert_eq!(exchange.0, "/v1/completions");
    assert_eq!(exchange.1["prompt"], "p");
    assert_eq!(exchange.1["max_tokens"], 5);
    assert_eq!(exchange.1["model"], "upstream");
    assert_eq!(exchange.1["stream_options"]["include_usage"], true);

    let chat = Server::start(upstream.url(), "chat_template_for_prompts = true").await;
    let (_, exchange) = tokio::join!(chat.complete(), async {
        let exchange = upstream.next().await;
        let seen = (exchange.path.clone(), exchange.body.clone());
        exchange.answer_words(1, &["a"]);
        seen
    });
    assert_eq!(exchange.0, "/v1/chat/completions");
    assert_eq!(
        exchange.1["messages"],
        json!([{ "role": "user", "content": "p" }])
    );
}

#[tokio::test]
async fn a_pause_of_the_model_is_bridged_by_comments() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let body = prompt(5);
    let (mut response, stream) = tokio::join!(server.post(STREAM, &body), async {
        let stream = upstream.next().await.stream();
        stream.text("a");
        stream
    });
    assert!(piece(&mut response).await.starts_with("data: "));
    server.settle().await;
    advance(Duration::from_millis(15_001)).await;
    assert_eq!(piece(&mut response).await, ": ping\r\n\r\n");
    stream.text("b");
    assert!(piece(&mut response).await.contains("\"text\":\"b\""));
}

#[tokio::test]
async fn the_models_are_listed_as_endpoints() {
    let upstream = Upstream::answering(|exchange| exchange.answer(200, &[], json!({ "data": [] }))).await;
    let server = Server::start(&upstream, "aliases = ['z']").await;
    let all = server.get("/v1/llm/model-endpoints").await.json();
    let names = |list: &Value| -> Vec<String> {
        let endpoints = list["model_endpoints"].as_array().unwrap();
        endpoints
            .iter()
            .map(|endpoint| endpoint["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&all), ["m", "z"]);
    assert_eq!(
        names(&server.get("/v1/llm/model-endpoints?name=z").await.json()),
        ["z"]
    );
    assert_eq!(
        names(&server.get("/v1/llm/model-endpoints?order_by=newest").await.json()),
        ["z", "m"]
    );
    let one = server.get("/v1/llm/model-endpoints/z").await.json();
    assert_eq!(
        (&one["model_name"], &one["status"]),
        (&json!("m"), &json!("READY"))
    );
    let server = Server::start(&upstream, "aliases = ['org/m-7b']").await;
    for target in ["org/m-7b", "org%2Fm-7b", "org/m-7b/"] {
        let one = server.get(&format!("/v1/llm/model-endpoints/{target}")).await;
        assert_eq!(one.status, StatusCode::OK, "{target}");
        assert_eq!(
            (&one.json()["name"], &one.json()["model_name"]),
            (&json!("org/m-7b"), &json!("m"))
        );
    }
    let unknown = server.get("/v1/llm/model-endpoints/nope").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["detail"], "Model Endpoint nope  was not found.");
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_a_413() {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(1, &["a"])).await;
    let server = Server::start(&upstream, "").await;
    let mut body = prompt(5);
    body["prompt"] = "x".repeat(9 * 1024 * 1024).into();
    let answer = Answer::read(server.post(SYNC, &body).await).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
}
