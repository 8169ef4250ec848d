//! Who may ask, for what, and what is never shown.

use llm_engine_gateway::{ApiKeyDigest, CallerSetup, Gateway, RouteStatus, SetupError, Unauthenticated};
use llm_engine_wire::openai::{Kind, Request};
use scripted_upstream::freeze;
use serde_json::json;

use crate::harness::{World, api_key, model, remote, setup, streaming};

#[tokio::test]
async fn a_caller_is_known_by_its_whole_key_alone() {
    let _frozen = freeze();
    let world = World::start().await;
    assert_eq!(&*world.caller("alice").name, "alice");
    assert_eq!(&*world.caller("bob").name, "bob");
    let key = api_key("alice");
    for wrong in [
        "",
        " ",
        "alice",
        &key[1..],
        &key[..key.len() - 1],
        &format!("{key} "),
        &key.to_uppercase(),
    ] {
        assert_eq!(
            world.gateway.authenticate(wrong),
            Err(Unauthenticated),
            "{wrong:?}"
        );
    }
    assert_eq!(
        world.gateway.authenticate(&"x".repeat(1_000_000)),
        Err(Unauthenticated)
    );
}

#[tokio::test]
async fn a_key_can_be_configured_by_its_digest() {
    let _frozen = freeze();
    // SHA-256 of `k`.
    let digest = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a";
    let upper = digest.to_uppercase();
    for digits in [digest, upper.as_str()] {
        let digest = ApiKeyDigest::from_hex(digits).unwrap();
        assert!(digest == ApiKeyDigest::of("k"));
        let mut setup = setup("http://localhost/v1");
        setup.callers = vec![CallerSetup {
            name: "k".to_owned(),
            team: None,
            api_key: digest,
            names_users: false,
            is_operator: false,
        }];
        let gateway = Gateway::start(setup).unwrap();
        assert_eq!(&*gateway.authenticate("k").unwrap().name, "k");
        assert!(gateway.authenticate(digits).is_err(), "a digest is no key");
    }
    for wrong in [
        "",
        "8254",
        &digest[1..],
        &format!("{digest}0"),
        &digest.replace('8', "g"),
        &"é".repeat(32),
    ] {
        assert!(ApiKeyDigest::from_hex(wrong).is_none(), "{wrong:?}");
    }
    assert!(
        ApiKeyDigest::from_hex(&format!("+{}", &digest[1..])).is_none(),
        "a sign is no digit"
    );
}

#[tokio::test]
async fn a_model_is_found_by_all_of_its_names_in_the_order_of_the_configuration() {
    let _frozen = freeze();
    let world = World::with(|setup| {
        setup.models.push(model("a", "http://localhost/v1"));
        setup.models[0].aliases = vec!["z".to_owned(), "y".to_owned()];
    })
    .await;
    for name in ["m", "z", "y"] {
        assert_eq!(world.gateway.resolve(name).unwrap().name.as_str(), "m");
    }
    let unknown = world.gateway.resolve("M").unwrap_err();
    assert_eq!(
        (unknown.name.as_str(), unknown.to_string().as_str()),
        ("M", "there is no model 'M'")
    );
    let names: Vec<&str> = world
        .gateway
        .routes()
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["m", "a"]);
}

#[tokio::test]
async fn the_deployment_is_sent_the_credential_the_request_s_id_and_its_own_name_of_the_model() {
    let _frozen = freeze();
    let mut world = World::with_credential("sk-secret").await;
    let request = streaming();
    let exchange = world.abandon(&request).await;
    assert_eq!(exchange.headers["authorization"], "Bearer sk-secret");
    assert_eq!(exchange.headers["x-request-id"], "r-1");
    assert_eq!(exchange.headers["content-type"], "application/json");
    assert_eq!(exchange.path, "/v1/completions");
    assert_eq!(exchange.body["model"], "up");

    let fields = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    let chat = Request::from_fields(Kind::Chat, fields.as_object().unwrap().clone()).unwrap();
    let exchange = world.abandon(&chat).await;
    assert_eq!(exchange.path, "/v1/chat/completions");
    assert_eq!(exchange.body["max_tokens"], 20, "the route's default");
}

#[tokio::test]
async fn without_a_credential_none_is_sent() {
    let _frozen = freeze();
    let mut world = World::start().await;
    let exchange = world.abandon(&streaming()).await;
    assert!(!exchange.headers.contains_key("authorization"));
}

#[tokio::test]
async fn no_key_is_in_any_debug_output() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        remote(setup).api_key = Some("sk-secret".to_owned());
        let shown = format!("{setup:?}");
        assert!(
            shown.contains("alice") && !shown.contains("sk-secret") && !shown.contains("key of"),
            "{shown}"
        );
    })
    .await;
    let (answer, _stream) = world.begin().await;
    // Digests of keys can be tried out offline if keys are weak: they stay in as well.
    let shown = format!(
        "{:?} {:?} {answer:?} {:?}",
        world.gateway,
        world.route(),
        world.caller("alice")
    );
    assert!(shown.contains("alice"));
    for secret in ["sk-secret", "key of", "Bearer"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}

#[tokio::test]
async fn no_digest_of_a_key_is_in_the_gateway_s_debug_output() {
    let _frozen = freeze();
    let mut alone = setup("http://localhost/v1");
    alone.callers = vec![CallerSetup {
        name: "k".to_owned(),
        team: None,
        api_key: ApiKeyDigest::of("k"),
        names_users: false,
        is_operator: false,
    }];
    let shown = format!("{:?}", Gateway::start(alone).unwrap());
    // The first bytes of the digest as `Debug` writes an array of bytes: 82 54 c3 29.
    assert!(!shown.contains("130, 84, 195, 41"), "{shown}");
}

#[tokio::test]
async fn a_deployment_that_can_not_be_used_is_told_with_its_model() {
    let _frozen = freeze();
    for url in [
        "",
        "localhost:8000",
        "ftp://localhost/v1",
        "http://",
        "/v1",
        "http://a b/",
    ] {
        let error = Gateway::start(setup(url)).unwrap_err();
        assert!(
            matches!(&error, SetupError::Url { model, .. } if model == "m"),
            "{url:?}: {error}"
        );
    }
    let mut setup = setup("http://localhost/v1");
    remote(&mut setup).api_key = Some("two\nlines".to_owned());
    let error = Gateway::start(setup).unwrap_err();
    assert!(matches!(error, SetupError::ApiKey { .. }));
    assert!(!error.to_string().contains("two"), "{error}");
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_url_makes_no_difference() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        remote(setup).url.push('/');
    })
    .await;
    assert_eq!(world.abandon(&streaming()).await.path, "/v1/completions");
}

#[tokio::test]
async fn a_route_is_ready_if_its_deployment_lists_its_models() {
    let _frozen = freeze();
    for (status, expected) in [
        (200, RouteStatus::Ready),
        (401, RouteStatus::Down),
        (404, RouteStatus::Down),
        (500, RouteStatus::Down),
    ] {
        let mut world = World::start().await;
        let route = world.route();
        let (found, ()) = tokio::join!(route.status(), async {
            let exchange = world.upstream.next().await;
            assert_eq!(exchange.path, "/v1/models");
            exchange.answer(status, &[], json!({}));
        });
        assert_eq!(found, expected, "{status}");
    }
}
