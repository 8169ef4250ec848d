use std::sync::Arc;

use hyper::StatusCode;
use scripted_upstream::{Exchange, Upstream};
use serde_json::{Value, json};

use crate::harness::{Answer, Server};
use crate::idempotency::REPLAYED;

const EMBEDDINGS: &str = "/v1/embeddings";

fn request() -> Value {
    json!({ "input": ["The sky", "is blue"], "model": "m", "encoding_format": "float", "task": "query" })
}

/// As a deployment answers, with members that nobody here knows.
fn answer() -> Value {
    json!({
        "object": "list", "model": "upstream", "dimensions": 2,
        "data": [
            { "object": "embedding", "index": 0, "embedding": [0.0023064255, -0.009327292] },
            { "object": "embedding", "index": 1, "embedding": [1e-7, 2.0] },
        ],
        "usage": { "prompt_tokens": 5, "total_tokens": 5 },
    })
}

fn answer_all(exchange: Exchange) {
    exchange.answer(200, &[], answer());
}

#[tokio::test]
async fn a_request_and_its_answer_pass_through_untouched_but_for_the_name_of_the_model() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    let (answered, (path, seen)) = tokio::join!(
        async { Answer::read(server.post(EMBEDDINGS, &request()).await).await },
        async {
            let exchange = upstream.next().await;
            let seen = (exchange.path.clone(), exchange.body.clone());
            answer_all(exchange);
            seen
        }
    );
    assert_eq!(path, "/v1/embeddings");
    let mut expected = request();
    expected["model"] = "upstream".into();
    assert_eq!(seen.to_string(), expected.to_string());
    let mut expected = answer();
    expected["model"] = "m".into();
    assert_eq!(
        (answered.status, answered.body.as_str()),
        (StatusCode::OK, expected.to_string().as_str())
    );
}

#[tokio::test]
async fn it_is_charged_the_tokens_of_its_input_and_policies_know_its_route() {
    let policies = "[[policies]]\nname = 'e'\nmatch = { route = '/v1/embeddings' }\n\
        input_tokens = { limit = 100, window = '30d' }\noutput_tokens = { limit = 1, window = '30d' }\n\
        requests = { limit = 2, window = '30d' }\n\
        [[policies]]\nname = 'c'\nmatch = { route = '/v1/completions' }\nrequests = { limit = 1, window = '30d' }";
    let server = Server::start(&Upstream::answering(answer_all).await, policies).await;
    let first = Answer::read(server.post(EMBEDDINGS, &request()).await).await;
    let id = first.request_id().to_owned();
    let explained = server.get(&format!("/v1/limits/explain/{id}")).await.json();
    assert_eq!(explained["route"], EMBEDDINGS);
    assert_eq!(
        (
            &explained["charged"]["input_tokens"],
            &explained["charged"]["output_tokens"]
        ),
        (&json!(5), &json!(0)),
        "{explained}"
    );
    assert_eq!(
        Answer::read(server.post(EMBEDDINGS, &request()).await)
            .await
            .status,
        200
    );
    let third = Answer::read(server.post(EMBEDDINGS, &request()).await).await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.json()["error"]["policy"], "e");
    assert!(!third.retry_after().is_zero());
}

#[tokio::test]
async fn one_that_can_never_fit_is_told_so() {
    let policy = "[[policies]]\nname = 'p'\ninput_tokens = { limit = 10, window = '1m' }";
    let server = Server::start(&Upstream::answering(answer_all).await, policy).await;
    let mut long = request();
    long["input"] = "many words ".repeat(20).into();
    let refused = Answer::read(server.post(EMBEDDINGS, &long).await).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"]["code"], "never_fits");
}

#[tokio::test]
async fn the_same_keyed_request_is_embedded_once() {
    let upstream = Upstream::start().await;
    let server = Arc::new(Server::start(upstream.url(), "").await);
    let answers = tokio::spawn(async move {
        let mut upstream = upstream;
        answer_all(upstream.next().await);
        upstream
    });
    let key = [("idempotency-key", "key")];
    let first = server.post_with(&key, EMBEDDINGS, &request()).await;
    let mut upstream = answers.await.unwrap();
    let again = server.post_with(&key, EMBEDDINGS, &request()).await;
    assert_eq!(again.header(REPLAYED), Some("true"));
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert!(upstream.arrived().is_none());
}

#[tokio::test]
async fn a_model_without_embeddings_is_the_caller_s_mistake() {
    for (status, body, reason) in [
        (
            404,
            json!({ "error": { "message": "no such route" } }),
            "no such route",
        ),
        (
            405,
            json!({ "detail": "Method Not Allowed" }),
            "Method Not Allowed",
        ),
        (
            501,
            json!({ "error": { "message": "it only generates" } }),
            "it only generates",
        ),
    ] {
        let upstream = move |exchange: Exchange| exchange.answer(status, &[], body.clone());
        let server = Server::start(&Upstream::answering(upstream).await, "").await;
        let refused = Answer::read(server.post(EMBEDDINGS, &request()).await).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{status}");
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("no_embeddings"), &json!("model"))
        );
        assert!(error["message"].as_str().unwrap().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_before_it_is_sent() {
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), "").await;
    for (field, value) in [
        ("input", Value::Null),
        ("input", json!("")),
        ("input", json!([])),
        ("input", json!(7)),
        ("model", json!(7)),
    ] {
        let mut body = request();
        body[field] = value;
        let refused = Answer::read(server.post(EMBEDDINGS, &body).await).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.json()["error"]["param"], field, "{body}");
    }
    let mut unknown = request();
    unknown["model"] = "nope".into();
    let unknown = Answer::read(server.post(EMBEDDINGS, &unknown).await).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let unnamed = server.send("POST", EMBEDDINGS, &[], Some("{}")).await;
    assert_eq!(unnamed.status(), StatusCode::UNAUTHORIZED);
    assert!(upstream.arrived().is_none());
}
