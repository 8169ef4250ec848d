//! What attacks cost the server and its other callers, by the real clock. The figures are printed; what has to hold is that the
//! server lives, that others are answered, and that it needs no more memory afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::client::prompt;
use crate::server::{Server, Turn};
use crate::upstream::{answer_at_once, deployed_model};
use crate::worker::megabytes;

/// How long others are watched, before and during an attack.
const WATCHED: Duration = Duration::from_secs(5);
const MOST_MEGABYTES_MORE: u64 = 64;
/// The allocator keeps what is freed for a second, in case that it is needed again, and looks for it when somebody else asks for memory.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// The slowest of a hundred answers to callers who ask one after the other, until this is over.
async fn p99(server: &Server, meanwhile: impl Future<Output = ()>) -> Duration {
    let until_over = async {
        let mut took = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < WATCHED {
            let asked = Instant::now();
            let answer = server.complete(&prompt("p", 1)).await;
            assert_eq!(answer.status, StatusCode::OK, "others are answered");
            took.push(asked.elapsed());
            sleep(Duration::from_millis(2)).await;
        }
        took.sort_unstable();
        took[took.len() * 99 / 100]
    };
    tokio::select! {
        p99 = until_over => p99,
        never = async { meanwhile.await; std::future::pending().await } => never,
    }
}

/// Attacks, and reports what that did.
#[expect(clippy::print_stdout, reason = "the figures")]
async fn attack(name: &str, server: &mut Server, attack: impl AsyncFn(SocketAddr)) {
    let memory = |server: &Server| megabytes(server.process(), "VmRSS:");
    let address = server.address.strip_prefix("http://").unwrap().parse().unwrap();
    p99(server, async {}).await;
    let idle = memory(server);
    let before = p99(server, async {}).await;
    let during = p99(server, async {
        loop {
            attack(address).await;
        }
    })
    .await;
    let most = idle + MOST_MEGABYTES_MORE;
    let mut after = memory(server);
    let over = Instant::now();
    while after > most && over.elapsed() < GIVEN_BACK {
        server.complete(&prompt("p", 1)).await;
        sleep(Duration::from_millis(10)).await;
        after = memory(server);
    }
    let peak = megabytes(server.process(), "VmHWM:");
    println!(
        "{name}: p99 of others {before:?} before, {during:?} during it ({:.2} times); {idle} MB before, {after} MB after, {peak} MB \
         at most",
        during.as_secs_f64() / before.as_secs_f64()
    );
    assert!(server.is_running());
    assert!(after <= most, "{name}: {idle} MB before, {after} MB after");
}

/// Says this, and hears the answer until its end or for a while.
async fn say(address: SocketAddr, pieces: impl IntoIterator<Item = Vec<u8>>) {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return;
    };
    for piece in pieces {
        if stream.write_all(&piece).await.is_err() {
            return;
        }
    }
    let mut heard = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut heard)).await;
}

fn post(length: usize, more: &str) -> Vec<u8> {
    let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer root\r\nconnection: close";
    format!("{head}\r\ncontent-length: {length}\r\n{more}\r\n").into_bytes()
}

async fn many(times: usize, attack: impl AsyncFn()) {
    join_all((0..times).map(|_| attack())).await;
    sleep(Duration::from_millis(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes two minutes, and measures what a busy machine spoils"]
async fn attacks_cost_the_server_no_memory_and_others_little_time() {
    let turn = Turn::take();
    let mut server = Server::start(&turn, &deployed_model(answer_at_once));
    let server = &mut server;

    attack("10,000 silent connections", server, async |address| {
        let mut open = Vec::new();
        for number in 0..10_000 {
            open.extend(TcpStream::connect(address).await);
            if number % 20 == 19 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        sleep(WATCHED).await;
    })
    .await;

    attack("1,000 heads, byte by byte", server, async |address| {
        many(1000, async || {
            let Ok(mut stream) = TcpStream::connect(address).await else {
                return;
            };
            for byte in b"GET /healthz HTTP/1.1\r\nx: " {
                let _ = stream.write_all(&[*byte]).await;
                sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
    })
    .await;

    attack("1,000 bodies, byte by byte", server, async |address| {
        many(1000, async || {
            let Ok(mut stream) = TcpStream::connect(address).await else {
                return;
            };
            let _ = stream.write_all(&post(1000, "")).await;
            for _ in 0..20 {
                let _ = stream.write_all(b"x").await;
                sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
    })
    .await;

    attack("bodies of 100 MB, one after the other", server, async |address| {
        let megabyte = vec![b'x'; 1024 * 1024];
        let pieces = std::iter::once(post(100 << 20, "")).chain(std::iter::repeat_n(megabyte, 100));
        say(address, pieces).await;
        sleep(Duration::from_millis(200)).await;
    })
    .await;

    attack("bodies of 8 MB, four at the same time", server, async |address| {
        many(4, async || {
            let body = format!(
                "{{\"model\": \"m\", \"prompt\": \"{}\"}}",
                "x".repeat((8 << 20) - 100)
            );
            say(address, [post(body.len(), ""), body.into_bytes()]).await;
        })
        .await;
        sleep(Duration::from_millis(500)).await;
    })
    .await;

    attack(
        "JSON a million deep, and of two million values",
        server,
        async |address| {
            let deep = "[".repeat(1_000_000);
            let wide = format!("{{\"model\": \"m\", \"prompt\": [{}0]}}", "0,".repeat(2_000_000));
            for body in [deep, wide] {
                say(address, [post(body.len(), ""), body.into_bytes()]).await;
                sleep(Duration::from_millis(100)).await;
            }
        },
    )
    .await;

    attack("floods of headers", server, async |address| {
        many(16, async || {
            let many = "a: b\r\n".repeat(1000);
            let large = format!("a: {}\r\n", "b".repeat(1 << 20));
            say(address, [post(0, &many)]).await;
            say(address, [post(0, &large)]).await;
        })
        .await;
        sleep(Duration::from_millis(50)).await;
    })
    .await;
}
