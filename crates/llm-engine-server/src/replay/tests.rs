use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode;
use http_body_util::BodyExt as _;
use llm_engine_gateway::{ApiKeyDigest, CallerSetup, Gateway, ProxySetup, Setup};

use super::*;
use crate::Listening;

/// An app with one caller, `k`.
fn app() -> App {
    let caller = CallerSetup {
        name: "k".to_owned(),
        team: None,
        api_key: ApiKeyDigest::of("k"),
        names_users: false,
        is_operator: false,
    };
    let setup = Setup {
        models: Vec::new(),
        callers: vec![caller],
        policies: Vec::new(),
        socket_folder: std::env::temp_dir(),
        journal: None,
        proxies: ProxySetup::default(),
        telemetry: None,
        wall_clock: jiff::Timestamp::now,
    };
    let replay = ReplaySetup {
        keep: Duration::from_secs(60),
        memory_bytes: 1 << 20,
        memory_bytes_per_caller: 1 << 20,
        answer_bytes: 1 << 20,
        answers: NonZeroUsize::MIN,
        answers_per_caller: NonZeroUsize::MIN,
    };
    let gateway = Gateway::start(setup).expect("nothing is wrong with it");
    App::new(Arc::new(gateway), Vec::new(), replay, Listening::default(), None)
}

/// A keyed request that a handler answers.
async fn ask<A>(app: &App, handler: impl FnOnce() -> A + Send) -> Response
where
    A: Future<Output = Response> + Send + 'static,
{
    let request = Request::builder()
        .uri("/path")
        .header("authorization", "Bearer k")
        .header(IDEMPOTENCY_KEY, "key")
        .body(Body::empty())
        .expect("a request");
    answer(app.clone(), request, Dialect::OpenAi, |_, _| handler()).await
}

#[tokio::test]
async fn a_handler_that_panics_is_told_to_all_who_listen_and_frees_the_key() {
    let app = app();
    let begun = AtomicU32::new(0);
    let panics = || {
        begun.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::task::yield_now().await;
            panic!("a mistake of ours")
        }
    };
    let (first, attached) = tokio::join!(ask(&app, panics), ask(&app, panics));
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    for answer in [first, attached] {
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "internal_error");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(!message.contains("mistake of ours"), "{message}");
    }
    let again = ask(&app, async || Response::new(Body::from("well"))).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(again.headers().get(REPLAYED), None);
    assert_eq!(
        again.into_body().collect().await.expect("a body").to_bytes(),
        "well"
    );
}

#[tokio::test]
async fn a_body_whose_making_panics_breaks_off_and_frees_the_key() {
    let app = app();
    let answer = ask(&app, async || {
        let pieces = stream::iter(["a", "b"]).map(|piece| {
            assert_ne!(piece, "b", "a mistake of ours");
            Ok::<_, std::convert::Infallible>(Bytes::from(piece))
        });
        Response::new(Body::from_stream(pieces))
    })
    .await;
    let mut body = answer.into_body();
    let first = body.frame().await.expect("a piece").expect("no error");
    assert_eq!(first.into_data().expect("bytes"), "a");
    // What ended as if it were whole would be taken for it.
    assert!(body.frame().await.expect("an end").is_err());
    let again = ask(&app, async || Response::new(Body::from("well"))).await;
    assert_eq!(again.headers().get(REPLAYED), None);
}
