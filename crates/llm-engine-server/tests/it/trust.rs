use hyper::StatusCode;
use scripted_upstream::freeze;
use serde_json::{Value, json};

use crate::harness::{SYNC, Server, chat, config, prompt, quick};

const CHAT: &str = "/v1/chat/completions";

/// One request for each address.
async fn per_address(trusted_proxies: &str) -> Server {
    let policy = "[[policies]]\nname = 'p'\nper = ['address']\nrequests = { limit = 1, window = '1h' }";
    let config = config(&quick().await, policy);
    Server::with_config(&format!("trusted_proxies = {trusted_proxies}\n{config}")).await
}

async fn is_admitted(server: &Server, forwarded_for: &str) -> bool {
    let headers = [("x-forwarded-for", forwarded_for)];
    let answer = server.post_with(&headers, SYNC, &prompt(5)).await;
    answer.status == StatusCode::OK
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_address_has_requests_of_its_own() {
    let _frozen = freeze();
    let server = per_address("['127.0.0.1']").await;
    assert!(is_admitted(&server, "203.0.113.1").await);
    assert!(!is_admitted(&server, "203.0.113.1").await);
    assert!(is_admitted(&server, "203.0.113.2").await);
    // Written another way it is the same address.
    assert!(!is_admitted(&server, "203.0.113.2:4711").await);
    assert!(!is_admitted(&server, "::ffff:203.0.113.2").await);
}

#[tokio::test]
async fn what_anybody_else_says_of_where_a_request_comes_from_is_not_believed() {
    let _frozen = freeze();
    for trusted in ["[]", "['127.0.0.2', '10.0.0.0/8']"] {
        let server = per_address(trusted).await;
        assert!(is_admitted(&server, "203.0.113.1").await);
        assert!(!is_admitted(&server, "203.0.113.2").await, "{trusted}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_only_the_last_address_that_is_not_trusted_counts() {
    let _frozen = freeze();
    let server = per_address("['127.0.0.0/8', '10.0.0.0/8']").await;
    assert!(is_admitted(&server, "6.6.6.1, 203.0.113.1, 10.0.0.2").await);
    assert!(!is_admitted(&server, "6.6.6.2, 203.0.113.1, 10.0.0.2").await);
    assert!(!is_admitted(&server, "203.0.113.1").await);
}

#[tokio::test]
async fn ipv6_addresses_of_one_network_of_64_bits_count_together() {
    let _frozen = freeze();
    let server = per_address("['127.0.0.1']").await;
    assert!(is_admitted(&server, "2001:db8::1").await);
    assert!(!is_admitted(&server, "2001:db8::2").await);
    assert!(!is_admitted(&server, "2001:db8:0:0:ffff:ffff:ffff:ffff").await);
    assert!(is_admitted(&server, "2001:db8:0:1::1").await);
    assert!(!is_admitted(&server, "[2001:db8:0:1::9]:4711").await);
}

/// One request for each user, whom the caller `trusted` may name.
async fn per_user(more: &str) -> Server {
    let trusted = "[callers.trusted]\ntrusted_users = true\n\
                   api_key_sha256 = 'a9a089195c68d2adeee23beaa2c3a93b1d4cdf09046e7a9e520b3b166dff3e6a'";
    let policy = format!(
        "[[policies]]\nname = 'p'\nper = ['user']\nrequests = {{ limit = 1, window = '1h' }}\n{more}"
    );
    Server::start(&quick().await, &format!("{trusted}\n{policy}")).await
}

async fn chat_for(server: &Server, key: &str, user: Value) -> StatusCode {
    let mut body = chat();
    body["user"] = user;
    body["stream"] = true.into();
    server.post_as(key, CHAT, &body).await.status()
}

async fn v1_for(server: &Server, key: &str, user: &str) -> StatusCode {
    let authorization = format!("Bearer {key}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("x-llm-engine-user", user),
    ];
    let body = prompt(5).to_string();
    server.send("POST", SYNC, &headers, Some(&body)).await.status()
}

#[tokio::test]
async fn each_user_that_a_trusted_caller_names_has_requests_of_its_own() {
    let _frozen = freeze();
    let server = per_user("").await;
    assert_eq!(chat_for(&server, "trusted", json!("ann")).await, StatusCode::OK);
    assert_eq!(
        chat_for(&server, "trusted", json!("ann")).await,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(chat_for(&server, "trusted", json!("bea")).await, StatusCode::OK);
    // On the routes whose bodies have no place for it a header says the same.
    assert_eq!(
        v1_for(&server, "trusted", "ann").await,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(v1_for(&server, "trusted", "cleo").await, StatusCode::OK);
}

#[tokio::test]
async fn whom_other_callers_name_does_not_count() {
    let _frozen = freeze();
    let server = per_user("").await;
    for _ in 0..3 {
        assert_eq!(chat_for(&server, "k", json!("ann")).await, StatusCode::OK);
        assert_eq!(v1_for(&server, "k", "ann").await, StatusCode::OK);
    }
    // Nor has it taken anything from the one who has that name.
    assert_eq!(chat_for(&server, "trusted", json!("ann")).await, StatusCode::OK);
}

#[tokio::test]
async fn a_policy_for_one_user_is_for_whom_a_trusted_caller_names_alone() {
    let _frozen = freeze();
    let server = per_user("match = { user = 'ann' }").await;
    for user in ["bea", "bea", "ann"] {
        assert_eq!(chat_for(&server, "trusted", json!(user)).await, StatusCode::OK);
    }
    assert_eq!(
        chat_for(&server, "trusted", json!("ann")).await,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(chat_for(&server, "k", json!("ann")).await, StatusCode::OK);
}

#[tokio::test]
async fn a_user_that_is_no_name_is_nobody() {
    let _frozen = freeze();
    let server = per_user("").await;
    for user in [json!(null), json!("")] {
        for _ in 0..2 {
            assert_eq!(
                chat_for(&server, "trusted", user.clone()).await,
                StatusCode::OK,
                "{user}"
            );
        }
    }
}
