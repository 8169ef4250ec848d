//! Deployments over TLS, with HTTP/2 where it is offered.

use http::Version;
use llm_engine_gateway::Failure;
use scripted_upstream::freeze;

use crate::harness::{World, drain, failed, remote, setup, spent, stream_of, streaming};
use crate::tls_upstream::{TlsUpstream, authority};

async fn in_front_of(url: &str) -> World {
    World::with(|world| {
        *world = setup(url);
        remote(world).certificate_authorities = vec![authority()];
        world.models[0].concurrency = std::num::NonZeroU32::new(8);
    })
    .await
}

async fn complete(world: &World) {
    let answer = world.complete(&streaming()).await;
    drain(stream_of(answer)).await.unwrap();
}

#[tokio::test]
async fn http_2_is_used_where_it_is_offered_and_one_connection_carries_all_requests() {
    let _frozen = freeze();
    let upstream = TlsUpstream::start(&["h2", "http/1.1"]).await;
    for name in ["127.0.0.1", "localhost"] {
        let world = in_front_of(&upstream.url(name)).await;
        complete(&world).await;
        tokio::join!(complete(&world), complete(&world), complete(&world));
    }
    assert_eq!(upstream.versions(), [Version::HTTP_2; 8]);
    assert_eq!(upstream.connections(), 2, "one of each world");
}

#[tokio::test]
async fn where_it_is_not_offered_http_1_is_used_and_a_connection_used_again() {
    let _frozen = freeze();
    for protocols in [&["http/1.1"][..], &[]] {
        let upstream = TlsUpstream::start(protocols).await;
        let world = in_front_of(&upstream.url("127.0.0.1")).await;
        for _ in 0..3 {
            complete(&world).await;
            crate::harness::settle().await;
        }
        assert_eq!(upstream.versions(), [Version::HTTP_11; 3]);
        assert_eq!(upstream.connections(), 1);
    }
}

#[tokio::test]
async fn who_has_a_certificate_that_nobody_vouches_for_is_not_told_anything() {
    let _frozen = freeze();
    let upstream = TlsUpstream::start(&["h2"]).await;
    let world = World::with(|world| *world = setup(&upstream.url("127.0.0.1"))).await;
    let failure = failed(world.complete(&streaming()).await);
    assert!(
        matches!(&failure, Failure::Unreachable(why) if why.contains("certificate")),
        "{failure:?}"
    );
    assert!(upstream.versions().is_empty());
    assert_eq!(world.spent(), spent(0, 0, 0));
}
