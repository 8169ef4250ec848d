use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};

use crate::harness::{Answer, STREAM, SYNC, Server, piece, prompt};

const POLICY: &str =
    "[[policies]]\nname = 'p'\noutput_tokens = { limit = 1000, window = '1h' }\nconcurrency = 1";

/// What is left of the 1,000 output tokens, without using any up: this request never fits.
async fn remaining(server: &Server) -> String {
    let answer = Answer::read(server.post(SYNC, &prompt(1001)).await).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    answer.header("x-ratelimit-remaining-tokens").unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_that_its_caller_drops_ends_upstream_and_pays_for_what_was_generated() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), POLICY).await;
    let (response, stream) = tokio::join!(
        async {
            let mut response = server.post(STREAM, &prompt(60)).await;
            assert!(piece(&mut response).await.contains("\"text\":\"a\""));
            response
        },
        async {
            let stream = upstream.next().await.stream();
            stream.text("a");
            stream
        }
    );
    drop(response);
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(remaining(&server).await, "999");
    // The one place is free again.
    let (next, ()) = tokio::join!(server.complete(), async {
        upstream.next().await.answer_words(3, &["a"]);
    });
    assert_eq!(next.status, StatusCode::OK);
}

#[tokio::test]
async fn a_caller_that_hangs_up_before_the_first_token_frees_its_place() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), POLICY).await;
    let waiting = server.complete();
    let exchange = tokio::select! {
        answer = waiting => panic!("nothing was answered, and yet there is {answer:?}"),
        exchange = upstream.next() => exchange,
    };
    let stream = exchange.stream();
    stream.hung_up().await;
    server.settle().await;
    assert_eq!(remaining(&server).await, "1000");
    let (next, ()) = tokio::join!(server.complete(), async {
        upstream.next().await.answer_words(3, &["a"]);
    });
    assert_eq!(next.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_breaks_pays_for_what_had_arrived() {
    let _frozen = freeze();
    let mut upstream = Upstream::start().await;
    let server = Server::start(upstream.url(), POLICY).await;
    let (answer, ()) = tokio::join!(
        async { Answer::read(server.post(STREAM, &prompt(60)).await).await },
        async {
            let stream = upstream.next().await.stream();
            stream.text("a");
            stream.text("b");
            server.settle().await;
            stream.cut();
        }
    );
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(remaining(&server).await, "998");
}

#[tokio::test]
async fn a_request_that_could_not_be_delivered_costs_nothing() {
    let _frozen = freeze();
    let closed_port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closed = format!("http://{closed_port}/v1");
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 10, window = '1h' }";
    let server = Server::start(&closed, policy).await;
    let answer = server.complete().await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("10"));
}
