use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze, stay_frozen};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{Answer, SYNC, Server, numbered, prompt, quick, running_stream};

/// SHA-256 of `operator`.
const OPERATOR: &str = "[callers.operator]\noperator = true\n\
     api_key_sha256 = '06e55b633481f7bb072957eabcf110c972e86691c3cfedabe088024bffe42f23'";

const POLICIES: &str = "[[policies]]\nname = 'few'\nper = ['key']\nrequests = { limit = 60, window = '1m', burst = 1 }
[[policies]]\nname = 'tokens'\nper = ['key']\noutput_tokens = { limit = 1_000, window = '1h' }\nconcurrency = 4";

async fn server() -> Server {
    Server::start(&quick().await, &format!("{OPERATOR}\n{POLICIES}")).await
}

async fn explanation(server: &Server, of: &Answer) -> Value {
    let answer = server
        .get(&format!("/v1/limits/explain/{}", of.request_id()))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json();
    assert_eq!(json["request_id"], of.request_id());
    assert_eq!(
        (&json["caller"], &json["model"], &json["route"]),
        (&json!("k"), &json!("m"), &json!("/v1/llm/completions-sync"))
    );
    json
}

/// The lines of the explanation for people, after the first.
fn lines(json: &Value) -> Vec<&str> {
    json["explanation"].as_str().unwrap().lines().skip(1).collect()
}

#[tokio::test]
async fn an_admitted_request_shows_what_was_asked_for_and_what_was_charged() {
    let _frozen = freeze();
    let server = server().await;
    let json = explanation(&server, &server.complete().await).await;
    assert_eq!(
        (&json["outcome"], &json["status"]),
        (&json!("completed"), &json!(200))
    );
    assert_eq!(json["time"], "2026-11-24T12:00:00Z");
    assert_eq!(
        json["asked"],
        json!({ "requests": 1, "input_tokens": 1, "output_tokens": 5, "usd": 0.0 })
    );
    assert_eq!(
        json["charged"],
        json!({ "requests": 1, "input_tokens": 3, "output_tokens": 2, "usd": 0.0 })
    );
    assert_eq!((&json["held_ms"], &json["refusal"]), (&json!(0), &Value::Null));
    assert_eq!(
        json["policies"],
        json!([
            {
                "policy": "few", "counts": "requests", "limit": 60, "limit_in_words": "60 requests per minute",
                "remaining_before": 1, "asked": 1, "verdict": "admits", "wait_ms": null,
            },
            {
                "policy": "tokens", "counts": "output_tokens", "limit": 1000,
                "limit_in_words": "1000 output tokens per hour",
                "remaining_before": 1000, "asked": 5, "verdict": "admits", "wait_ms": null,
            },
            {
                "policy": "tokens", "counts": "concurrency", "limit": 4,
                "limit_in_words": "4 requests at the same time",
                "remaining_before": 4, "asked": 1, "verdict": "admits", "wait_ms": null,
            },
        ])
    );
    assert_eq!(
        lines(&json),
        [
            "Policy few allows 60 requests per minute: 1 request could be taken, 1 request (charged at last: 1 request) \
             asked for; it admits.",
            "Policy tokens allows 1000 output tokens per hour: 1000 output tokens could be taken, 5 output tokens \
             (charged at last: 2 output tokens) asked for; it admits.",
            "Policy tokens allows 4 requests at the same time: 4 requests could be taken, 1 request asked for; it admits.",
        ]
    );
}

#[tokio::test]
async fn a_refused_request_shows_who_refused_and_the_time_that_is_kept() {
    let _frozen = freeze();
    let server = server().await;
    server.complete().await;
    let refused = server.complete().await;
    let json = explanation(&server, &refused).await;
    assert_eq!(
        (&json["outcome"], &json["status"]),
        (&json!("rate_limited"), &json!(429))
    );
    assert_eq!(
        json["charged"],
        json!({ "requests": 0, "input_tokens": 0, "output_tokens": 0, "usd": 0.0 })
    );
    let verdicts: Vec<_> = json["policies"].as_array().unwrap().iter().collect();
    assert_eq!(
        (
            &verdicts[0]["verdict"],
            &verdicts[0]["remaining_before"],
            &verdicts[0]["wait_ms"]
        ),
        (&json!("refuses"), &json!(0), &json!(1000))
    );
    assert_eq!(
        (
            &verdicts[1]["verdict"],
            &verdicts[1]["remaining_before"],
            &verdicts[1]["wait_ms"]
        ),
        (&json!("admits"), &json!(998), &Value::Null)
    );
    assert_eq!(
        json["refusal"],
        json!({
            "code": "rate_limited", "message": refused.json()["detail"], "retry_after_ms": 1000, "exact": true,
            "booked": true,
        })
    );
    assert_eq!(
        lines(&json)[0],
        "Policy few allows 60 requests per minute: 0 requests could be taken, 1 request (charged at last: 0 requests) \
         asked for; it refuses for 1.0 s."
    );
    assert_eq!(
        lines(&json)[3..],
        [
            "The answer: Policy few allows 60 requests per minute, this request asks for 1 and 0 are left; try again in \
             1.0 s.",
            "That time is kept for it, and for 3 s more.",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_held_and_then_admitted_shows_for_how_long() {
    let _frozen = stay_frozen();
    let server = server().await;
    server.complete().await;
    let body = numbered(1);
    let (held, ()) = tokio::join!(server.post_with(&[("prefer", "wait=5")], SYNC, &body), async {
        server.settle().await;
        advance(Duration::from_secs(1)).await;
    });
    assert_eq!(held.status, StatusCode::OK);
    let json = explanation(&server, &held).await;
    assert_eq!(
        (&json["outcome"], &json["held_ms"]),
        (&json!("completed"), &json!(1000))
    );
    assert_eq!(json["time"], "2026-11-24T12:00:00Z", "when it came");
    assert_eq!(
        (&json["policies"][0]["verdict"], &json["refusal"]),
        (&json!("admits"), &Value::Null)
    );
    assert_eq!(
        (
            &json["policies"][0]["remaining_before"],
            &json["policies"][0]["wait_ms"]
        ),
        (&json!(1), &Value::Null)
    );
    assert!(lines(&json).contains(&"It was held for 1.0 s until its time came."));
}

#[tokio::test]
async fn a_request_that_a_policy_only_observes_shows_what_it_would_have_said() {
    let _frozen = freeze();
    let policies = "[[policies]]\nname = 'watched'\nmode = 'observe'\nrequests = { limit = 1, window = '1m' }\n\
                    [[policies]]\nname = 'real'\nrequests = { limit = 9, window = '1m' }";
    let server = Server::start(&quick().await, policies).await;
    server.complete().await;
    let beyond = server.complete().await;
    assert_eq!(beyond.status, StatusCode::OK);
    let json = explanation(&server, &beyond).await;
    let [watched, real] = json["policies"].as_array().unwrap().as_slice() else {
        panic!("{json}");
    };
    assert_eq!(
        (&watched["policy"], &watched["verdict"]),
        (&json!("watched"), &json!("would_refuse"))
    );
    assert_eq!(watched["wait_ms"], 60_000);
    assert_eq!(
        (&real["policy"], &real["verdict"]),
        (&json!("real"), &json!("admits"))
    );
    assert!(lines(&json)[0].ends_with("it would refuse (observed only) for 60.0 s."));
}

#[tokio::test]
async fn a_request_that_never_fits_shows_that_no_wait_helps() {
    let _frozen = freeze();
    let server = server().await;
    let never = Answer::read(server.post(SYNC, &prompt(1001)).await).await;
    assert_eq!(never.status, StatusCode::BAD_REQUEST);
    let json = explanation(&server, &never).await;
    assert_eq!(
        (&json["outcome"], &json["status"]),
        (&json!("never_fits"), &json!(400))
    );
    assert_eq!(json["refusal"]["retry_after_ms"], Value::Null);
    assert!(
        lines(&json)[1].ends_with("it refuses, and always would."),
        "{json}"
    );
}

#[tokio::test]
async fn a_stream_that_its_caller_dropped_shows_what_it_was_charged() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), POLICIES).await;
    let (response, stream) = running_stream(&server, &mut upstream, 60).await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let running = server.get(&format!("/v1/limits/explain/{id}")).await;
    assert_eq!(running.status, StatusCode::NOT_FOUND, "it has not ended");
    drop(response);
    stream.hung_up().await;
    server.settle().await;
    let json = server.get(&format!("/v1/limits/explain/{id}")).await.json();
    assert_eq!(
        (&json["outcome"], &json["status"]),
        (&json!("abandoned"), &json!(499))
    );
    assert_eq!(
        (&json["asked"]["output_tokens"], &json["charged"]["output_tokens"]),
        (&json!(60), &json!(1))
    );
}

#[tokio::test]
async fn callers_see_their_own_requests_and_operators_all() {
    let _frozen = freeze();
    let server = server().await;
    let own = server.complete().await;
    let target = format!("/v1/limits/explain/{}", own.request_id());

    let another_s = server.get_as("other", &target).await;
    let unknown = server.get_as("other", "/v1/limits/explain/nothing").await;
    for answer in [&another_s, &unknown] {
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.json()["error"]["code"], "unknown_request");
    }
    // Nothing but the id that was asked for tells one from the other.
    let but_for_ids = |answer: &Answer, asked_for: &str| {
        let own = answer.request_id().to_owned();
        answer.body.replace(asked_for, "").replace(&own, "")
    };
    assert_eq!(
        but_for_ids(&another_s, own.request_id()),
        but_for_ids(&unknown, "nothing")
    );
    assert_eq!(server.get_as("operator", &target).await.json()["caller"], "k");
    assert_eq!(server.get(&target).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_key_nothing_is_explained() {
    let server = server().await;
    let own = server.complete().await;
    for target in [
        format!("/v1/limits/explain/{}", own.request_id()),
        "/v1/limits/explain/nothing".to_owned(),
    ] {
        let missing = Answer::read(server.send("GET", &target, &[], None).await).await;
        assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
        assert!(missing.header("www-authenticate").is_some());
        let wrong = server.get_as("nobody", &target).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
        assert_eq!(wrong.json()["error"]["code"], "invalid_api_key");
    }
}

#[tokio::test]
async fn the_latest_10000_requests_are_remembered_and_none_before() {
    let _frozen = freeze();
    // Without any policy, and to nobody: each is refused where it is cheapest.
    let server = Server::start(
        "http://127.0.0.1:1/v1",
        "[[policies]]\nname = 'p'\ntokens = { limit = 5, window = '1m' }",
    )
    .await;
    let first = Answer::read(server.post(SYNC, &prompt(9)).await).await;
    let second = Answer::read(server.post(SYNC, &prompt(9)).await).await;
    for _ in 0..9_999 {
        Answer::read(server.post(SYNC, &prompt(9)).await).await;
    }
    let explain = async |answer: &Answer| {
        let target = format!("/v1/limits/explain/{}", answer.request_id());
        server.get(&target).await.status
    };
    assert_eq!(explain(&first).await, StatusCode::NOT_FOUND);
    assert_eq!(explain(&second).await, StatusCode::OK);
}
