//! Keyed requests over connections that break anywhere, sent again until their answers are whole.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};
use scripted_upstream::{Exchange, Upstream};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

use crate::harness::{Log, STREAM, SYNC, Server, metric, numbered};

const REQUESTS: usize = 1_000;
const AT_ONCE: usize = 50;
const SEED: u64 = 20_261_124;

#[tokio::test]
async fn a_thousand_requests_over_connections_that_break_are_each_generated_charged_and_answered_once() {
    let log = Log::default();
    let _logging = log.begin();
    let generated = Arc::new(Mutex::new(HashMap::new()));
    let count = Arc::clone(&generated);
    let upstream = Upstream::answering(move |exchange| generate(exchange, &count)).await;
    // Nothing refills before the month is over, however long this takes.
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 10_000, window = 'calendar-month' }\n\
                  output_tokens = { limit = 100_000, window = 'calendar-month' }";
    let server = Server::start(&upstream, &format!("concurrency = {AT_ONCE}\n{policy}")).await;
    let cutter = cutter(server.address).await;

    let begun = Instant::now();
    let answers = stream::iter(0..REQUESTS).map(async |number| until_answered(cutter, number).await);
    let attempts: Vec<usize> = answers.buffer_unordered(AT_ONCE).collect().await;
    let took = begun.elapsed();

    let attempts: usize = attempts.into_iter().sum();
    let repeated = async |outcome: &str| {
        let name = format!("llm_engine_repeated_requests_total{{outcome=\"{outcome}\"}}");
        metric(&server, &name).await.unwrap().parse::<usize>().unwrap()
    };
    let (attached, replayed) = (repeated("attached").await, repeated("replayed").await);
    println!("{attempts} attempts in {took:?}: {attached} attached, {replayed} replayed");
    assert!(
        attempts > REQUESTS * 3 / 2,
        "the connections break too seldom to show anything"
    );
    assert!(attached > 0 && replayed > 0);

    {
        let generated = generated.lock().unwrap();
        assert_eq!(generated.len(), REQUESTS);
        assert!(generated.values().all(|times| *times == 1));
    }
    let tokens: usize = (0..REQUESTS).map(|number| words(number).len()).sum();
    let limits = server.get("/v1/limits").await.json();
    let left: Vec<_> = limits["data"][0]["limits"].as_array().unwrap().iter().collect();
    assert_eq!(left[0]["remaining"], 10_000 - REQUESTS);
    assert_eq!(left[1]["remaining"], 100_000 - tokens);
    let lines = log.lines();
    let records = lines.iter().filter(|line| line.contains("llm_engine::request"));
    let (whole, others): (Vec<_>, Vec<_>) = records.partition(|line| line.contains("outcome=\"completed\""));
    assert_eq!((whole.len(), others), (REQUESTS, Vec::new()));
}

/// What is generated for a request.
fn words(number: usize) -> Vec<String> {
    let count = 2 + number % 23;
    (0..count).map(|word| format!("w{number}.{word} ")).collect()
}

/// Answers slowly enough that connections break in between.
fn generate(exchange: Exchange, count: &Mutex<HashMap<usize, usize>>) {
    let prompt = exchange.body["prompt"].as_str().unwrap();
    let number: usize = prompt.strip_prefix('p').unwrap().parse().unwrap();
    *count.lock().unwrap().entry(number).or_default() += 1;
    tokio::spawn(async move {
        let stream = exchange.stream();
        let words = words(number);
        for word in &words {
            for _ in 0..20 {
                yield_now().await;
            }
            stream.text(word);
        }
        stream.finish("stop");
        stream.usage(3, words.len() as u64);
        stream.done();
    });
}

/// Passes connections on, and breaks most of them after some bytes of the request or of the answer.
async fn cutter(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(SEED);
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (of_request, of_answer) = match random.u8(0..8) {
                0 => (usize::MAX, usize::MAX),
                1..=3 => (random.usize(0..500), usize::MAX),
                4..=6 => (usize::MAX, random.usize(0..500)),
                _ => (usize::MAX, random.usize(0..5_000)),
            };
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                server.set_nodelay(true).unwrap();
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                tokio::select! {
                    () = pass_on(client_reads, server_writes, of_request) => {}
                    () = pass_on(server_reads, client_writes, of_answer) => {}
                }
            });
        }
    });
    address
}

/// Until there is no more, or so many bytes have passed.
async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut most: usize) {
    let mut bytes = [0; 4096];
    while most > 0 {
        let room = most.min(bytes.len());
        match from.read(&mut bytes[..room]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                most -= count;
                if to.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends a request again and again; gives how often.
async fn until_answered(server: SocketAddr, number: usize) -> usize {
    for attempt in 1..100 {
        if let Some(text) = attempt_once(server, number).await {
            assert_eq!(text, words(number).concat());
            return attempt;
        }
    }
    panic!("request {number} is never answered");
}

/// The text of the answer, if it is whole.
async fn attempt_once(server: SocketAddr, number: usize) -> Option<String> {
    let streams = number.is_multiple_of(2);
    let target = if streams { STREAM } else { SYNC };
    let body = numbered(number).to_string();
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: server\r\nconnection: close\r\nauthorization: Bearer k\r\n\
         content-type: application/json\r\nidempotency-key: key-{number}\r\nx-llm-engine-keep-seconds: 30\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(server).await.ok()?;
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // An answer that is not whole may also end with an error.
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let body = whole_body(&head.to_lowercase(), body)?;
    Some(if streams {
        text_of_events(&body)
    } else {
        text_of_whole(&body)
    })
}

fn whole_body(head: &str, body: &str) -> Option<String> {
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    if let Some(length) = length {
        return (body.len() == length.parse::<usize>().unwrap()).then(|| body.to_owned());
    }
    let (mut whole, mut rest) = (String::new(), body);
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return after.starts_with("\r\n").then_some(whole);
        }
        whole.push_str(after.get(..length)?);
        rest = after.get(length..)?.strip_prefix("\r\n")?;
    }
}

fn text_of_events(body: &str) -> String {
    let frames = body
        .split("\r\n\r\n")
        .filter_map(|event| event.strip_prefix("data: "));
    let frames: Vec<Value> = frames.map(|frame| serde_json::from_str(frame).unwrap()).collect();
    assert_eq!(frames.last().unwrap()["output"]["finished"], true, "{body}");
    frames
        .iter()
        .map(|frame| frame["output"]["text"].as_str().unwrap())
        .collect()
}

fn text_of_whole(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["output"]["text"].as_str().unwrap().to_owned()
}
