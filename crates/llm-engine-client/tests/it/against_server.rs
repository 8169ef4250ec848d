//! Against the real server, in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_client::openai::{ChatRequest, CompletionRequest as TextRequest, Message};
use llm_engine_client::v1::{CompletionRequest, EndpointStatus};
use llm_engine_client::{Client, ErrorKind};
use llm_engine_server::config::Config;
use llm_engine_server::{App, Cores, Gateway, Listening, ProxySetup, Setup, WorkerSetup, serve};
use scripted_upstream::Upstream;
use tokio::net::TcpListener;

/// A server in front of a model that answers "ab" at once, and a client of it. The key is `k`.
async fn served(policies: &str) -> Client {
    let upstream = Upstream::answering(|exchange| exchange.answer_words(3, &["a", "b"])).await;
    let text = format!(
        "listen = '127.0.0.1:0'\n[models.m]\ndeployments = [{{ url = '{upstream}', model = 'upstream' }}]\n\
         [callers.k]\napi_key_sha256 = '8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a'\n{policies}"
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let no_worker = |_: &_, _: &_| Err::<WorkerSetup, _>("no test here has a model file");
    let models = config
        .models
        .into_iter()
        .map(|model| model.into_setup(no_worker).unwrap());
    let setup = Setup {
        models: models.collect(),
        callers: config.callers,
        policies: config.policies,
        socket_folder: std::env::temp_dir(),
        journal: None,
        proxies: ProxySetup::default(),
        telemetry: None,
        wall_clock: Timestamp::now,
    };
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Arc::new(Gateway::start(setup).unwrap());
    let app = App::new(
        gateway,
        config.trusted_proxies,
        config.replay,
        Listening::default(),
        None,
    );
    tokio::spawn(async move { serve(listener, app, &Cores::here(), std::future::pending()).await });
    Client::new(url, "k").unwrap()
}

fn request() -> CompletionRequest {
    CompletionRequest::new("m", "p", 5, 0.2)
}

#[tokio::test]
async fn our_own_dialect_there_and_back() {
    let client = served("").await;
    let request = CompletionRequest {
        stop_sequences: vec!["x".to_owned()],
        top_p: Some(0.5),
        ..request()
    };
    let answer = client.complete(&request).await.unwrap();
    assert_eq!(
        (answer.output.text.as_str(), answer.output.num_prompt_tokens),
        ("ab", Some(3))
    );

    let mut frames = client.complete_stream(&request).await.unwrap();
    let mut text = String::new();
    let mut last = None;
    while let Some(frame) = frames.next().await {
        let output = frame.unwrap().output.unwrap();
        text.push_str(&output.text);
        last = Some(output);
    }
    assert_eq!(text, "ab");
    let last = last.unwrap();
    assert!(last.finished && last.num_completion_tokens == Some(2), "{last:?}");

    assert_eq!(
        client.model_endpoints().await.unwrap().model_endpoints[0].name,
        "m"
    );
    let endpoint = client.model_endpoint("m").await.unwrap();
    assert!(matches!(
        endpoint.status,
        EndpointStatus::Ready | EndpointStatus::UpdateFailed
    ));
}

#[tokio::test]
async fn openai_s_dialect_there_and_back() {
    let client = served("").await;
    let chat = ChatRequest::new("m", [Message::user("hi")]);
    let mut chunks = client.chat_stream(&chat).await.unwrap();
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        text.push_str(chunk.unwrap().text());
    }
    assert_eq!(text, "ab");
    let mut chunks = client
        .completions_stream(&TextRequest::new("m", "p"))
        .await
        .unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap().text(), "a");
    assert_eq!(client.models().await.unwrap().data[0].id, "m");
}

#[tokio::test]
async fn its_errors_are_understood() {
    let client = served("").await;
    let wrong = CompletionRequest::new("m", "p", 5, 7.0);
    let error = client.complete(&wrong).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Invalid, Some(422)));
    assert!(error.message().starts_with("body.temperature: "), "{error}");
    assert!(error.request_id().is_some());

    let error = client
        .complete(&CompletionRequest::new("x", "p", 5, 0.2))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::NotFound, Some("model_not_found"))
    );

    let stranger = Client::new(client.base_url(), "wrong").unwrap();
    let error = stranger.complete(&request()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Unauthorized, "Could not authenticate user")
    );
}

#[tokio::test]
async fn callers_beyond_a_limit_lose_nothing() {
    let policy =
        "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 50, window = '1s', burst = 5 }";
    let client = served(policy).await;
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.complete(&request()).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().output.text, "ab");
    }
}

#[tokio::test]
async fn a_refusal_names_its_policy_and_its_time() {
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\nrequests = { limit = 1, window = '1h' }";
    let client = served(policy).await;
    client.complete(&request()).await.unwrap();
    let error = client.complete(&request()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code(), error.policy()),
        (ErrorKind::Refused, Some("rate_limited"), Some("p"))
    );
    assert!(error.retry_after().unwrap() > Duration::from_secs(3500));
    assert_eq!(error.attempts().len(), 1);
}
