use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::{Authority, Scheme, Uri};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// What `bare-proxy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The upstream's address, as `127.0.0.1:8000`.
    upstream: Authority,
}

/// Passes requests on until it is ended.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(tcp);
    let upstream = Arc::new(arguments.upstream.clone());
    let router = Router::new().fallback(move |request| pass(client.clone(), Arc::clone(&upstream), request));
    let listener = crate::listener().await?.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

async fn pass(
    client: Client<HttpConnector, Body>,
    upstream: Arc<Authority>,
    mut request: Request,
) -> Response {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(Authority::clone(&upstream)));
    let Ok(uri) = Uri::from_parts(uri) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    match client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
