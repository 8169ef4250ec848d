use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{Answer, SYNC, Server, chat, config, piece, prompt, quick, running_stream};

const POLICIES: &str = "price = { input_usd_per_million = 0, output_usd_per_million = 1_000_000 }
[models.n]
deployments = [{ url = 'http://127.0.0.1:1/v1', model = 'x' }]
[[policies]]
name = 'own'
per = ['key', 'model']
requests = { limit = 60, window = '1m' }
tokens = { limit = 20_000, window = '1m' }
concurrency = 8
[[policies]]
name = 'shared'
match = { model = 'm' }
requests = { limit = 100, window = '1h' }
[[policies]]
name = 'day'
per = ['key']
usd = { limit = 10.0, window = 'calendar-day' }
[[policies]]
name = 'of-other'
match = { caller = 'other' }
output_tokens = { limit = 7, window = '1m' }";

/// How the quota of a policy stands for a model.
fn level<'a>(answer: &'a Answer, json: &'a Value, model: &str, policy: &str, counts: &str) -> &'a Value {
    let models = json["data"].as_array().unwrap();
    let model = models.iter().find(|entry| entry["model"] == model).unwrap();
    let mut limits = model["limits"].as_array().unwrap().iter();
    let found = limits.find(|limit| limit["policy"] == policy && limit["counts"] == counts);
    found.unwrap_or_else(|| panic!("{}", answer.body))
}

async fn remaining(server: &Server, key: &str, (model, policy, counts): (&str, &str, &str)) -> Value {
    let answer = server.get_as(key, "/v1/limits").await;
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json();
    level(&answer, &json, model, policy, counts)["remaining"].clone()
}

#[tokio::test]
async fn every_limit_that_applies_is_listed_for_every_model() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, POLICIES).await;
    server.complete().await;
    let limit = |policy: &str, counts: &str, limit: Value, words: &str, remaining: Value, full_in: u64| {
        json!({
            "policy": policy, "route": null, "counts": counts, "limit": limit, "limit_in_words": words, "remaining": remaining,
            "full_in_ms": full_in,
        })
    };
    let of_minute = "60 requests per minute";
    let shared = limit(
        "shared",
        "requests",
        json!(100),
        "100 requests per hour",
        json!(99),
        36_000,
    );
    let day = limit(
        "day",
        "usd",
        json!(10.0),
        "$10.00 per calendar day",
        json!(8.0),
        43_200_000,
    );
    let tokens = "20000 tokens per minute";
    let places = limit(
        "own",
        "concurrency",
        json!(8),
        "8 requests at the same time",
        json!(8),
        0,
    );
    let used = [
        limit("own", "requests", json!(60), of_minute, json!(59), 1_000),
        limit("own", "tokens", json!(20_000), tokens, json!(19_995), 15),
        places.clone(),
        shared,
        day.clone(),
    ];
    let unused = [
        limit("own", "requests", json!(60), of_minute, json!(60), 0),
        limit("own", "tokens", json!(20_000), tokens, json!(20_000), 0),
        places,
        day,
    ];
    assert_eq!(
        server.get("/v1/limits").await.json(),
        json!({
            "object": "list", "caller": "k",
            "data": [{ "model": "m", "limits": used }, { "model": "n", "limits": unused }],
        })
    );
}

#[tokio::test]
async fn what_callers_use_is_theirs_but_for_what_is_shared() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, POLICIES).await;
    for _ in 0..3 {
        server.complete().await;
    }
    let own = ("m", "own", "requests");
    assert_eq!(remaining(&server, "k", own).await, 57);
    assert_eq!(remaining(&server, "other", own).await, 60);
    assert_eq!(remaining(&server, "k", ("n", "own", "requests")).await, 60);
    assert_eq!(remaining(&server, "other", ("m", "day", "usd")).await, 10.0);
    assert_eq!(remaining(&server, "other", ("m", "shared", "requests")).await, 97);
    assert_eq!(
        remaining(&server, "other", ("n", "of-other", "output_tokens")).await,
        7
    );
    let of_k = server.get("/v1/limits").await;
    assert!(!of_k.body.contains("other"), "{}", of_k.body);
}

#[tokio::test]
async fn it_is_how_they_stand_now_and_asking_takes_nothing() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), POLICIES).await;
    let (mut response, stream) = running_stream(&server, &mut upstream, 5).await;
    // While it runs it has a place, and all that it may need.
    for _ in 0..3 {
        assert_eq!(remaining(&server, "k", ("m", "own", "concurrency")).await, 7);
        assert_eq!(remaining(&server, "k", ("m", "day", "usd")).await, 5.0);
    }
    stream.finish("stop");
    stream.usage(3, 1);
    stream.done();
    while !piece(&mut response).await.contains("\"finished\":true") {}
    server.settle().await;
    assert_eq!(remaining(&server, "k", ("m", "own", "concurrency")).await, 8);
    assert_eq!(remaining(&server, "k", ("m", "day", "usd")).await, 9.0);
    assert_eq!(remaining(&server, "k", ("m", "own", "requests")).await, 59);
    advance(Duration::from_secs(1)).await;
    assert_eq!(remaining(&server, "k", ("m", "own", "requests")).await, 60);
}

#[tokio::test]
async fn a_refused_caller_sees_that_nothing_is_left() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1m' }";
    let server = Server::start(&quick().await, policy).await;
    server.complete().await;
    assert_eq!(server.complete().await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(remaining(&server, "k", ("m", "p", "requests")).await, 0);
}

#[tokio::test]
async fn without_policies_the_lists_are_empty() {
    let server = Server::start(&quick().await, "").await;
    assert_eq!(
        server.get("/v1/limits").await.json()["data"],
        json!([{ "model": "m", "limits": [] }])
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_told() {
    let server = Server::start(&quick().await, POLICIES).await;
    let missing = Answer::read(server.send("GET", "/v1/limits", &[], None).await).await;
    let wrong = server.get_as("nobody", "/v1/limits").await;
    for answer in [missing, wrong] {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
        assert!(!answer.body.contains("own"), "{}", answer.body);
    }
    let post = server.post("/v1/limits", &json!({})).await;
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
}

/// What is left to a caller of model `m`, by policy and route.
fn left(answer: &Answer) -> Vec<(String, Option<String>, u64)> {
    let json = answer.json();
    let limits = json["data"][0]["limits"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    limits
        .map(|limit| {
            let policy = text(&limit["policy"]).unwrap();
            (
                policy,
                text(&limit["route"]),
                limit["remaining"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn what_counts_for_one_route_alone_is_listed_for_that_route() {
    let _frozen = freeze();
    let policies = "[[policies]]\nname = 'chat'\nmatch = { route = '/v1/chat/completions' }\n\
                    requests = { limit = 5, window = '1h' }\n\
                    [[policies]]\nname = 'each'\nper = ['route']\nrequests = { limit = 9, window = '1h' }\n\
                    [[policies]]\nname = 'all'\nrequests = { limit = 20, window = '1h' }";
    let server = Server::start(&quick().await, policies).await;
    let mut body = chat();
    body["stream"] = true.into();
    let answer = Answer::read(server.post("/v1/chat/completions", &body).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    let entry =
        |policy: &str, route: Option<&str>, left: u64| (policy.to_owned(), route.map(str::to_owned), left);
    let mut found = left(&server.get("/v1/limits").await);
    found.sort();
    assert_eq!(
        found,
        [
            entry("all", None, 19),
            entry("chat", Some("/v1/chat/completions"), 4),
            entry("each", Some("/v1/chat/completions"), 8),
            entry("each", Some("/v1/completions"), 9),
            entry("each", Some("/v1/embeddings"), 9),
            entry("each", Some("/v1/llm/completions-stream"), 9),
            entry("each", Some("/v1/llm/completions-sync"), 9),
            entry("each", Some("/v2/chat/completions"), 9),
            entry("each", Some("/v2/completions"), 9),
        ]
    );
}

#[tokio::test]
async fn what_counts_for_an_address_or_a_user_is_that_of_whoever_asks() {
    let _frozen = freeze();
    let policies = "[callers.trusted]\ntrusted_users = true\n\
                    api_key_sha256 = 'a9a089195c68d2adeee23beaa2c3a93b1d4cdf09046e7a9e520b3b166dff3e6a'\n\
                    [[policies]]\nname = 'a'\nper = ['address']\nrequests = { limit = 5, window = '1h' }\n\
                    [[policies]]\nname = 'u'\nper = ['user']\nrequests = { limit = 9, window = '1h' }";
    let config = config(&quick().await, policies);
    let server = Server::with_config(&format!("trusted_proxies = ['127.0.0.1']\n{config}")).await;
    let send = async |method: &str, target: &str, address: &str, user: &str| {
        let headers = [
            ("authorization", "Bearer trusted"),
            ("content-type", "application/json"),
            ("x-forwarded-for", address),
            ("x-llm-engine-user", user),
        ];
        let body = prompt(5).to_string();
        let answer = Answer::read(server.send(method, target, &headers, Some(&body)).await).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer
    };
    send("POST", SYNC, "203.0.113.1", "ann").await;
    for (address, user, expected) in [
        ("203.0.113.1", "ann", vec![4, 8]),
        ("203.0.113.2", "ann", vec![5, 8]),
        ("203.0.113.1", "bea", vec![4, 9]),
        ("203.0.113.2", "", vec![5]),
    ] {
        let answer = send("GET", "/v1/limits", address, user).await;
        let left: Vec<_> = left(&answer).into_iter().map(|(_, _, left)| left).collect();
        assert_eq!(left, expected, "{address} {user}");
    }
}

#[tokio::test]
async fn a_policy_that_only_observes_is_seen_neither_here_nor_in_headers() {
    let _frozen = freeze();
    let policies = "[[policies]]\nname = 'watched'\nmode = 'observe'\nrequests = { limit = 1, window = '1h' }\n\
                    [[policies]]\nname = 'real'\nrequests = { limit = 9, window = '1h' }";
    let server = Server::start(&quick().await, policies).await;
    server.complete().await;
    let answer = server.complete().await;
    assert_eq!(answer.header("ratelimit"), Some("\"real/requests\";r=7;t=800"));
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"real/requests\";q=9;w=3600")
    );
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("7"));
    assert!(!server.get("/v1/limits").await.body.contains("watched"));
}
