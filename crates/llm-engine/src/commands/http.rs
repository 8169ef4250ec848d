//! Asking a server.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Sends a request to the server at `base`.
pub(super) async fn send(request: Request<Full<Bytes>>, base: &str) -> anyhow::Result<Response<Incoming>> {
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    client
        .request(request)
        .await
        .with_context(|| format!("{base} can't be reached"))
}

/// What the server says instead of an answer, in its own words.
pub(super) async fn refused(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    match body(response).await {
        Ok(Value::Object(answer)) if answer.get("detail").is_some_and(Value::is_string) => {
            let detail = answer["detail"].as_str().unwrap_or_default();
            anyhow::anyhow!("{} {detail}", status.as_u16())
        }
        Ok(answer) => anyhow::anyhow!("{status}: {answer}"),
        Err(_) => anyhow::anyhow!("{status}"),
    }
}

/// The whole answer.
pub(super) async fn body(response: Response<Incoming>) -> anyhow::Result<Value> {
    let body = response
        .into_body()
        .collect()
        .await
        .context("the answer broke off")?
        .to_bytes();
    serde_json::from_slice(&body).context("the answer is no JSON")
}

/// A name as a part of a URL.
pub(super) fn percent_encoded(name: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| {
            if safe(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
