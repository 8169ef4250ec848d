//! What arrives on the wire and is no request, or one that asks too much: each gets a clear answer or a closed connection, and
//! harms nobody else.

use scripted_upstream::freeze;
use serde_json::json;

use crate::harness::{Answer, Server, chat, prompt, quick};
use crate::raw::Raw;

const ROUTES: [&str; 6] = [
    "/v1/llm/completions-sync?model_endpoint_name=m",
    "/v1/llm/completions-stream?model_endpoint_name=m",
    "/v1/chat/completions",
    "/v1/completions",
    "/v2/chat/completions",
    "/v2/completions",
];

async fn start() -> Server {
    Server::start(&quick().await, "").await
}

/// Others are answered as ever.
async fn assert_alive(server: &Server) {
    assert_eq!(server.complete().await.status, 200);
}

/// What the server says to these bytes, and whether it closes the connection after that.
async fn said_to(server: &Server, bytes: impl AsRef<[u8]>) -> (Vec<u16>, bool) {
    let mut raw = Raw::open(server).await;
    raw.say(bytes).await;
    raw.hear(server).await;
    (raw.statuses(), raw.is_closed)
}

/// A request with these headers, and after it the bytes.
fn post(headers: &str, rest: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\n{headers}\r\n{rest}")
}

/// What an attacker wants another server in front of us to take for a body, and us for a request.
const SMUGGLED: &str = "GET /v1/models HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\n\r\n";

// === request smuggling ===

#[tokio::test]
async fn a_length_and_chunks_are_one_request_after_which_nothing_is_read() {
    let _frozen = freeze();
    let server = start().await;
    let (length, chunked) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
    for headers in [[length, chunked].concat(), [chunked, length].concat()] {
        let (statuses, is_closed) = said_to(&server, post(&headers, &format!("0\r\n\r\n{SMUGGLED}"))).await;
        assert_eq!((statuses, is_closed), (vec![400], true), "{headers}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_length_that_is_none_is_refused_and_nothing_after_it_is_read() {
    let _frozen = freeze();
    let server = start().await;
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length:\r\n",
        "content-length : 5\r\n",
        "content-length\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding: chunked\r\n : x\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "x: a\r\n b: folded\r\n",
        "x: a\rtransfer-encoding: chunked\r\n",
        "x: a\0b\r\n",
        ": no name\r\n",
        "two words: x\r\n",
    ] {
        let (statuses, is_closed) = said_to(&server, post(headers, &format!("hello{SMUGGLED}"))).await;
        assert_eq!((statuses, is_closed), (vec![400], true), "{headers:?}");
    }
    let old = "POST /v1/completions HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(
        said_to(&server, format!("{old}{SMUGGLED}")).await,
        (vec![400], true)
    );
    assert_alive(&server).await;
}

#[tokio::test]
async fn chunks_that_are_none_are_refused_and_nothing_after_them_is_read() {
    let _frozen = freeze();
    let server = start().await;
    for chunks in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    ] {
        let body = format!("{chunks}{SMUGGLED}");
        let (statuses, is_closed) = said_to(&server, post("transfer-encoding: chunked\r\n", &body)).await;
        assert_eq!((statuses, is_closed), (vec![400], true), "{chunks:?}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_chunk_larger_than_memory_waits_for_its_bytes_without_taking_any() {
    let _frozen = freeze();
    let server = start().await;
    let endless = post("transfer-encoding: chunked\r\n", "FFFFFFFFFFFFFFFF\r\nhello");
    let (statuses, _) = said_to(&server, endless).await;
    assert!(statuses.is_empty() || statuses == [400], "{statuses:?}");
    assert_alive(&server).await;
}

#[tokio::test]
async fn lines_that_end_in_a_bare_line_feed_are_one_request_and_no_more() {
    let _frozen = freeze();
    let server = start().await;
    let (statuses, _) = said_to(&server, "GET /healthz HTTP/1.1\nhost: h\nx: y\n\n").await;
    assert_eq!(statuses, [200]);
    let body = "{}";
    let bare = post("content-length: 2\r\n", body).replace("\r\n", "\n");
    assert_eq!(said_to(&server, bare).await.0, [400]);
    assert_alive(&server).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_or_cut_off() {
    let _frozen = freeze();
    let server = start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\xc3\xa4T / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    ] {
        let (statuses, is_closed) = said_to(&server, bytes).await;
        let is_refused = statuses.iter().all(|status| (400..=505).contains(status));
        assert!(
            is_closed && statuses.len() <= 1 && is_refused,
            "{bytes:?}: {statuses:?}"
        );
    }
    assert_alive(&server).await;
}

// === too much of it ===

#[tokio::test]
async fn more_or_larger_headers_than_anybody_needs_are_431() {
    let _frozen = freeze();
    let server = start().await;
    let many = "a: b\r\n".repeat(101);
    let large = format!("a: {}\r\n", "b".repeat(70_000));
    let long_name = format!("{}: b\r\n", "a".repeat(70_000));
    for headers in [&many, &large, &long_name] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        assert_eq!(said_to(&server, request).await, (vec![431], true));
    }
    let enough = "a: b\r\n".repeat(90);
    let request = format!("GET /healthz HTTP/1.1\r\nhost: h\r\n{enough}\r\n");
    assert_eq!(said_to(&server, request).await, (vec![200], false));
}

#[tokio::test]
async fn a_path_or_query_that_is_too_long_is_414() {
    let _frozen = freeze();
    let server = start().await;
    for uri in [
        format!("/v1/models/{}", "m".repeat(9000)),
        format!("/healthz?{}", "q".repeat(9000)),
    ] {
        let answer = server.get(&uri).await;
        assert_eq!(answer.status, 414);
        assert_eq!(answer.json()["error"]["code"], "uri_too_long");
    }
    let longer = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "u".repeat(66_000));
    let (statuses, is_closed) = said_to(&server, longer).await;
    assert!(statuses == [414] || statuses == [431], "{statuses:?}");
    assert!(is_closed);
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_413_on_every_route_told_its_length_or_in_chunks() {
    let server = start().await;
    let megabyte = vec![b'x'; 1024 * 1024];
    for (route, is_chunked) in ROUTES.into_iter().zip([true, false].into_iter().cycle()) {
        let mut raw = Raw::open(&server).await;
        let length = if is_chunked {
            "transfer-encoding: chunked"
        } else {
            "content-length: 104857600"
        };
        let authorization = "authorization: Bearer k\r\nconnection: close";
        raw.say(format!(
            "POST {route} HTTP/1.1\r\nhost: h\r\n{authorization}\r\n{length}\r\n\r\n"
        ))
        .await;
        for _ in 0..100 {
            if is_chunked {
                raw.say("100000\r\n").await;
            }
            raw.say(&megabyte).await;
            if is_chunked {
                raw.say("\r\n").await;
            }
        }
        if is_chunked {
            raw.say("0\r\n\r\n").await;
        }
        raw.hear_all().await;
        assert_eq!(raw.statuses(), [413], "{route}");
        assert!(raw.heard().contains("body_too_large"), "{}", raw.heard());
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn who_asks_before_sending_too_much_is_told_at_once() {
    let _frozen = freeze();
    let server = start().await;
    for headers in [
        "content-length: 104857600\r\nexpect: 100-continue\r\n",
        "content-length: 1048576000\r\n",
    ] {
        assert_eq!(said_to(&server, post(headers, "")).await.0, [413], "{headers}");
    }
}

#[tokio::test]
async fn a_large_body_of_nobody_is_401_before_it_is_kept() {
    let _frozen = freeze();
    let server = start().await;
    let body = format!("{{\"prompt\": \"{}", "x".repeat(100_000));
    for route in ROUTES {
        let wrong = server
            .send("POST", route, &[("authorization", "Bearer wrong")], Some(&body))
            .await;
        assert_eq!(wrong.status(), 401, "{route}");
        let known = server
            .send("POST", route, &[("authorization", "Bearer k")], Some(&body))
            .await;
        assert!(
            [400, 422].contains(&known.status().as_u16()),
            "{route}: {}",
            known.status()
        );
    }
}

// === JSON ===

/// What each route says to this body.
async fn statuses(server: &Server, body: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for route in ROUTES {
        let mut raw = Raw::open(server).await;
        let headers =
            "host: h\r\nauthorization: Bearer k\r\ncontent-type: application/json\r\nconnection: close";
        raw.say(format!(
            "POST {route} HTTP/1.1\r\n{headers}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
        raw.say(body).await;
        raw.hear_all().await;
        statuses.extend(raw.statuses());
    }
    statuses
}

#[tokio::test]
async fn json_that_is_none_is_the_caller_s_mistake_on_every_route() {
    let server = start().await;
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let within = |value: &str| {
        format!(
            r#"{{"model": "m", "prompt": "p", "max_new_tokens": 1, "temperature": 0, "messages": {value}}}"#
        )
    };
    let arrays = deep("[", "]");
    let objects = deep("{\"a\":", "}");
    for body in [
        &b""[..],
        b"{",
        b"nonsense",
        b"{\"model\": }",
        b"{\"model\": \"m\",}",
        b"[]",
        b"null",
        b"\"\xff\xfe\"",
        b"{\"model\": \"\xc3\x28\"}",
        b"{\"model\": \"\\ud800\"}",
        b"{\"model\": 1e999999}",
        arrays.as_bytes(),
        objects.as_bytes(),
        "[".repeat(1_000_000).as_bytes(),
        within(&arrays).as_bytes(),
        within(&objects).as_bytes(),
    ] {
        let statuses = statuses(&server, body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(statuses.len(), ROUTES.len(), "{shown}");
        assert!(
            statuses.iter().all(|status| [400, 422].contains(status)),
            "{shown}: {statuses:?}"
        );
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_body_that_would_take_many_times_its_size_is_refused_before_it_is_parsed() {
    let server = start().await;
    for value in ["0,", "{},", "[],", "\"\","] {
        let body = format!("{{\"model\": \"m\", \"prompt\": [{}0]}}", value.repeat(2_000_000));
        let statuses = statuses(&server, body.as_bytes()).await;
        assert_eq!(statuses, [400; ROUTES.len()], "{value}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_model_that_is_not_there_is_404_however_it_is_called() {
    let _frozen = freeze();
    let server = start().await;
    for name in ["", "M", "m\0", "../m", "m ", &"m".repeat(5000), "%00", "ü"] {
        let mut body = chat();
        body["model"] = name.into();
        let answer = Answer::read(server.post("/v1/chat/completions", &body).await).await;
        assert!(
            [400, 404].contains(&answer.status.as_u16()),
            "{name:?}: {answer:?}"
        );
    }
    let v1 = "/v1/llm/completions-sync?model_endpoint_name=%00%ff";
    assert_eq!(server.post(v1, &prompt(1)).await.status(), 404);
}

#[tokio::test]
async fn a_prompt_that_a_policy_never_admits_is_400_and_costs_nothing() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nper = ['key']\ninput_tokens = { limit = 1000, window = '1m' }\n";
    let server = Server::start(&quick().await, policy).await;
    let mut body = prompt(1);
    body["prompt"] = "word ".repeat(100_000).into();
    let answer = Answer::read(server.post(ROUTES[0], &body).await).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], "never_fits");
    assert_alive(&server).await;
}

#[tokio::test]
async fn header_values_of_any_bytes_are_answered() {
    let _frozen = freeze();
    let server = start().await;
    let body = json!({ "model": "m", "prompt": "p", "max_tokens": 1 }).to_string();
    for (name, value) in [
        ("idempotency-key", &b"\xff\xfe"[..]),
        ("idempotency-key", b""),
        ("prefer", b"wait=99999999999999999999"),
        ("prefer", b"wait=-1, wait=\xff"),
        ("x-forwarded-for", b"\xff, , ::::, 1.2.3.4.5"),
        ("x-llm-engine-user", b"\xff"),
        ("x-llm-engine-keep-seconds", b"1e9"),
        ("content-type", b"\xff/json"),
        ("authorization", b"Basic \xff"),
        ("authorization", b"Basic ===="),
        ("authorization", b"\xff"),
    ] {
        let mut request = post("", "").into_bytes();
        request.truncate(request.len() - 2);
        if name == "authorization" {
            request = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\n".to_vec();
        }
        request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        request.extend(format!("content-length: {}\r\n\r\n{body}", body.len()).into_bytes());
        let (statuses, _) = said_to(&server, request).await;
        assert_eq!(statuses.len(), 1, "{name}");
        assert!(statuses[0] < 500, "{name}: {statuses:?}");
    }
    assert_alive(&server).await;
}
