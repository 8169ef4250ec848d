//! One file per group of routes.

mod cluster;
mod endpoints;
mod fine_tunes;
mod health;
mod limits;
mod openai;
mod rate_limits;
mod requests;
mod v1;
mod v2;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::App;
use crate::error_answer::{Dialect, ErrorAnswer, method_not_allowed, not_found};
use crate::replay;

/// All routes.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route(
            "/v1/llm/completions-sync",
            generating(Dialect::LlmEngine, v1::completions_sync),
        )
        .route(
            "/v1/llm/completions-stream",
            generating(Dialect::LlmEngine, v1::completions_stream),
        )
        .route("/v1/llm/model-endpoints", get(endpoints::list))
        .route("/v1/llm/model-endpoints/{*name}", get(endpoints::get))
        .route(
            "/v1/chat/completions",
            generating(Dialect::OpenAi, openai::chat_completions),
        )
        .route(
            "/v1/completions",
            generating(Dialect::OpenAi, openai::completions),
        )
        .route("/v1/embeddings", generating(Dialect::OpenAi, openai::embeddings))
        .route("/v1/llm/fine-tunes", get(fine_tunes::list))
        .route("/v1/llm/fine-tunes/{id}", get(fine_tunes::unknown))
        .route("/v1/llm/fine-tunes/{id}/events", get(fine_tunes::unknown))
        .route("/v1/llm/fine-tunes/{id}/cancel", put(fine_tunes::unknown))
        .merge(cluster::router())
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route(
            "/v2/chat/completions",
            generating(Dialect::LlmEngine, v2::chat_completions),
        )
        .route("/v2/completions", generating(Dialect::LlmEngine, v2::completions))
        .route("/v1/limits", get(limits::list))
        .route("/v1/limits/explain/{request_id}", get(limits::explain))
        .route("/v1/requests/{idempotency_key}", delete(requests::cancel))
        .route("/rate-limits", get(rate_limits::page))
        .route("/rate-limits.md", get(rate_limits::markdown))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::alive))
        .route("/healthcheck", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(unrouted)
        .method_not_allowed_fallback(async |method: Method, uri: Uri| method_not_allowed(&method, uri.path()))
        .with_state(app)
}

/// A route whose answers cost something: a request with an idempotency key is answered by the handler once, however often it is
/// sent. The dialect is that of what is said about the key.
fn generating<H, A>(dialect: Dialect, handler: H) -> MethodRouter<App>
where
    H: Fn(State<App>, Request) -> A + Copy + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    post(async move |State(app): State<App>, request: Request| {
        replay::answer(app, request, dialect, handler).await
    })
}

/// A path with a slash too many is sent on to the one without, as the public servers do.
async fn unrouted(request: Request) -> Response {
    let path = request.uri().path();
    let Some(shorter) = path
        .strip_suffix('/')
        .filter(|path| path.len() > 1 && !path.starts_with("//"))
    else {
        return not_found(path);
    };
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    match HeaderValue::try_from(format!("{shorter}{query}")) {
        Ok(location) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response(),
        Err(_) => not_found(path),
    }
}

/// A new name for a request, told to the caller and to the deployment.
pub(crate) fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a route has come to: its refusals are written in its dialect, and the request's name is on everything.
fn answered<E: Into<ErrorAnswer>>(
    answer: Result<Response, E>,
    dialect: Dialect,
    request_id: &str,
) -> Response {
    let response = answer.unwrap_or_else(|error| error.into().in_dialect(dialect, request_id));
    named(response, request_id)
}

/// Puts the request's name on its answer.
pub(crate) fn named(mut response: Response, request_id: &str) -> Response {
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// The first query parameter of that name.
pub(crate) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let mut named = parameters.into_iter().filter(|(found, _)| found == name);
    named.next().map(|(_, value)| value)
}
