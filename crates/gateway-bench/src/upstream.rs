use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::sleep;

/// What `upstream` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Chunks of a streamed answer.
    #[arg(long, default_value_t = 50)]
    chunks: u32,
    /// Milliseconds between two chunks; the first one comes at once.
    #[arg(long, default_value_t = 4)]
    chunk_ms: u64,
    /// Milliseconds before a whole answer.
    #[arg(long, default_value_t = 0)]
    whole_ms: u64,
}

const WHOLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Sunlight is scattered by the molecules of the air, blue light most of all."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":16,"total_tokens":28}}"#;
const MODELS: &str =
    r#"{"object":"list","data":[{"id":"m","object":"model","created":1700000000,"owned_by":"bench"}]}"#;

/// Answers until it is ended.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let listener = crate::listener().await?;
    let (chunks, pause) = (arguments.chunks, Duration::from_millis(arguments.chunk_ms));
    let whole = Duration::from_millis(arguments.whole_ms);
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let answers = service_fn(move |request| answer(request, chunks, pause, whole));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), answers));
    }
}

async fn answer(
    request: Request<Incoming>,
    chunks: u32,
    pause: Duration,
    whole: Duration,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    if request.method() == Method::GET {
        return Ok(response("application/json", Full::from(MODELS).boxed()));
    }
    let body = request.into_body().collect().await?.to_bytes();
    Ok(if asks_for_stream(&body) {
        let events = stream::unfold(0, move |index| event(index, chunks, pause));
        response("text/event-stream", StreamBody::new(events).boxed())
    } else {
        if !whole.is_zero() {
            sleep(whole).await;
        }
        response("application/json", Full::from(WHOLE).boxed())
    })
}

/// Bodies are written with and without a space here.
fn asks_for_stream(body: &[u8]) -> bool {
    let has = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
    has(b"\"stream\":true") || has(b"\"stream\": true")
}

/// So many chunks, one with the reason of the end, one with the usage, and the end.
async fn event(index: u32, chunks: u32, pause: Duration) -> Option<(Result<Frame<Bytes>, Infallible>, u32)> {
    if index > chunks {
        return None;
    }
    if index > 0 && !pause.is_zero() {
        sleep(pause).await;
    }
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",{rest}}}\n\n"
        )
    };
    let text = if index < chunks {
        chunk(r#""choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]"#)
    } else {
        let end = chunk(r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]"#);
        let usage =
            chunk(r#""choices":[],"usage":{"prompt_tokens":12,"completion_tokens":50,"total_tokens":62}"#);
        format!("{end}{usage}data: [DONE]\n\n")
    };
    Some((Ok(Frame::data(text.into())), index + 1))
}

fn response(
    content_type: &'static str,
    body: BoxBody<Bytes, Infallible>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
