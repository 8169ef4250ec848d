use hyper::StatusCode;
use serde_json::json;

use crate::harness::{Answer, Server, quick};

async fn send(server: &Server, method: &str, target: &str) -> Answer {
    let headers = [
        ("authorization", "Bearer k"),
        ("content-type", "application/json"),
    ];
    Answer::read(server.send(method, target, &headers, Some("{}")).await).await
}

#[tokio::test]
async fn what_needs_a_gpu_cluster_says_so() {
    let server = Server::start(&quick().await, "").await;
    for (method, target, what) in [
        ("POST", "/v1/llm/model-endpoints", "Creating a model endpoint"),
        ("PUT", "/v1/llm/model-endpoints/m", "Changing a model endpoint"),
        ("DELETE", "/v1/llm/model-endpoints/m", "Deleting a model endpoint"),
        (
            "DELETE",
            "/v1/llm/model-endpoints/org/m",
            "Deleting a model endpoint",
        ),
        ("POST", "/v1/llm/model-endpoints/download", "Downloading a model"),
        ("POST", "/v1/llm/fine-tunes", "Fine-tuning a model"),
        ("POST", "/v1/model-bundles", "Bundling a model"),
        ("GET", "/v2/model-bundles/latest", "Bundling a model"),
        ("POST", "/v1/triggers", "Triggering a job"),
        ("DELETE", "/v1/triggers/t", "Triggering a job"),
        ("POST", "/v1/async-tasks", "Running an async task"),
        ("GET", "/v1/async-tasks/t", "Running an async task"),
    ] {
        let answer = send(&server, method, target).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{method} {target}");
        let detail =
            format!("{what} needs a GPU cluster; this server serves the models in its configuration.");
        assert_eq!(answer.json()["detail"], detail.as_str());
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let unnamed = Answer::read(server.send(method, target, &[], None).await).await;
        assert_eq!(unnamed.status, StatusCode::UNAUTHORIZED, "{method} {target}");
    }
}

#[tokio::test]
async fn there_are_no_fine_tunes() {
    let server = Server::start(&quick().await, "").await;
    let list = server.get("/v1/llm/fine-tunes").await;
    assert_eq!(
        (list.status, list.json()),
        (StatusCode::OK, json!({ "jobs": [] }))
    );
    for (method, target) in [
        ("GET", "/v1/llm/fine-tunes/ft-1"),
        ("GET", "/v1/llm/fine-tunes/ft-1/events"),
        ("PUT", "/v1/llm/fine-tunes/ft-1/cancel"),
    ] {
        let answer = send(&server, method, target).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {target}");
        let detail = "The specified fine-tune could not be found.";
        assert_eq!(answer.json()["detail"], detail);
        let unnamed = Answer::read(server.send(method, target, &[], None).await).await;
        assert_eq!(unnamed.status, StatusCode::UNAUTHORIZED, "{method} {target}");
    }
}

#[tokio::test]
async fn methods_and_paths_that_nobody_has_are_told_apart() {
    let server = Server::start(&quick().await, "").await;
    for (method, target) in [
        ("DELETE", "/v1/llm/model-endpoints"),
        ("POST", "/v1/llm/model-endpoints/m"),
        ("DELETE", "/v1/llm/fine-tunes"),
        ("POST", "/v1/llm/fine-tunes/ft-1/cancel"),
        ("GET", "/v2/chat/completions"),
        ("POST", "/v1/models"),
    ] {
        let answer = send(&server, method, target).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {target}");
        assert_eq!(answer.json()["detail"], "Method Not Allowed");
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
        assert!(answer.header("allow").is_some(), "{method} {target}");
    }
    for target in [
        "/v2",
        "/v2/models",
        "/v1/llm/fine-tunes/ft-1/nope",
        "/v1/model-bundlesx",
    ] {
        let answer = send(&server, "GET", target).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{target}");
        assert_eq!(answer.json()["detail"], "Not Found");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "unknown_route");
        assert_eq!(error["message"], format!("There is no route {target}."));
    }
}

#[tokio::test]
async fn an_order_of_endpoints_that_there_is_not_is_a_problem_of_the_query() {
    let server = Server::start(&quick().await, "").await;
    let answer = server.get("/v1/llm/model-endpoints?order_by=size").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let expected = json!([{
        "type": "enum", "loc": ["query", "order_by"], "msg": "Input should be 'newest', 'oldest' or 'alphabetical'",
        "input": "size", "ctx": { "expected": "'newest', 'oldest' or 'alphabetical'" },
    }]);
    assert_eq!(answer.json()["detail"], expected);
}
