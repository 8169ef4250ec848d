//! Deployments that are reached through a proxy.

use llm_engine_gateway::{Failure, Gateway, ProxySetup, SetupError};
use scripted_upstream::freeze;

use crate::harness::{World, drain, failed, setup, spent, stream_of, streaming};
use crate::raw_upstream::RawUpstream;

const EVENTS: &str = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A world whose deployment is at this URL, behind a proxy for both schemes.
async fn behind(proxy: &RawUpstream, url: &str, no_proxy: &str) -> World {
    let proxy = proxy
        .url()
        .replace("http://", "http://me:secret@")
        .replace("/v1", "");
    World::with(|world| {
        *world = setup(url);
        world.proxies = ProxySetup {
            http: proxy.clone(),
            https: proxy,
            no_proxy: no_proxy.to_owned(),
        };
    })
    .await
}

#[tokio::test]
async fn a_proxy_is_told_with_each_request_where_to_and_who_asks() {
    let _frozen = freeze();
    let proxy = RawUpstream::start().await;
    let world = behind(&proxy, "http://model.test/v1", "").await;
    let request = streaming();
    let (answer, seen) = tokio::join!(world.complete(&request), async {
        let mut connection = proxy.next().await;
        connection.answer("text/event-stream", EVENTS).await;
        connection.seen
    });
    drain(stream_of(answer)).await.unwrap();
    assert!(
        seen.starts_with("POST http://model.test/v1/completions HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(
        seen.contains("proxy-authorization: Basic bWU6c2VjcmV0\r\n"),
        "{seen}"
    );
    assert!(seen.contains("host: model.test\r\n"), "{seen}");
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_and_a_proxy_that_makes_none_costs_nothing() {
    let _frozen = freeze();
    let proxy = RawUpstream::start().await;
    let world = behind(&proxy, "https://model.test/v1", "").await;
    let request = streaming();
    let (answer, seen) = tokio::join!(world.complete(&request), async {
        let mut connection = proxy.next().await;
        connection.write("HTTP/1.1 407 Who are you\r\n\r\n").await;
        connection.seen
    });
    assert!(seen.starts_with("CONNECT model.test:443 HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.to_lowercase()
            .contains("proxy-authorization: basic bwu6c2vjcmv0\r\n"),
        "{seen}"
    );
    let failure = failed(answer);
    assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
    assert_eq!(world.spent(), spent(0, 0, 0));
}

#[tokio::test]
async fn this_machine_and_what_is_excepted_are_reached_directly() {
    let _frozen = freeze();
    let proxy = RawUpstream::start().await;
    let direct = RawUpstream::start().await;
    let world = behind(&proxy, &direct.url(), "").await;
    let request = streaming();
    let (answer, seen) = tokio::join!(world.complete(&request), async {
        let mut connection = direct.next().await;
        connection.answer("text/event-stream", EVENTS).await;
        connection.seen
    });
    drain(stream_of(answer)).await.unwrap();
    assert!(seen.starts_with("POST /v1/completions HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
    // A name that nobody has: it is not the proxy that is asked for it.
    let world = behind(&proxy, "http://model.invalid/v1", "invalid").await;
    failed(world.complete(&request).await);
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_at_the_start_unless_nobody_needs_it() {
    let with = |remote: bool| {
        let mut setup = setup("http://model.test/v1");
        setup.proxies.https = "socks5://me:secret@proxy:1".to_owned();
        if !remote {
            setup.models.clear();
        }
        Gateway::start(setup)
    };
    let error = with(true).unwrap_err();
    assert!(matches!(error, SetupError::Proxy { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    with(false).unwrap();
}
