//! One file per group of routes.

mod batch_completions;
mod batches;
mod cluster;
mod endpoints;
mod files;
mod fine_tunes;
mod health;
mod limits;
mod openai;
mod rate_limits;
mod requests;
mod v1;
mod v2;

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use llm_engine_wire::validation::Body;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::App;
use crate::api::Api;
use crate::error_answer::{Dialect, ErrorAnswer, method_not_allowed, not_found};
use crate::request_body::understood;

/// All routes.
pub(crate) fn router(app: App) -> Router {
    api()
        .into_router()
        .fallback(unrouted)
        .method_not_allowed_fallback(async |method: Method, uri: Uri| method_not_allowed(&method, uri.path()))
        .with_state(app)
}

/// The OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> Value {
    api().document()
}

fn api() -> Api {
    let mut api = Api::new();
    v1::add_to(&mut api);
    v2::add_to(&mut api);
    openai::add_to(&mut api);
    endpoints::add_to(&mut api);
    fine_tunes::add_to(&mut api);
    files::add_to(&mut api);
    batches::add_to(&mut api);
    batch_completions::add_to(&mut api);
    cluster::add_to(&mut api);
    limits::add_to(&mut api);
    requests::add_to(&mut api);
    rate_limits::add_to(&mut api);
    health::add_to(&mut api);
    api
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

/// What a model answers in OpenAI's form. That of another server is passed on as it came, but for the name of the model.
fn openai_answer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["model"],
        "properties": {
            "id": { "type": "string" },
            "object": { "type": "string" },
            "created": { "type": "integer", "description": "Unix time, in seconds" },
            "model": { "type": "string" },
            "choices": { "type": "array", "items": { "type": "object" } },
            "usage": { "type": ["object", "null"] },
        },
    })
}

/// A schema that was written as JSON.
fn schema_of(schema: Value) -> Schema {
    Schema::try_from(schema).unwrap_or_default()
}

/// What a body says to a route of LLM Engine's, which read it by its content type.
async fn read_laxly<T: Send + 'static>(
    headers: &HeaderMap,
    bytes: &Bytes,
    read: impl FnOnce(&Body) -> T + Send + 'static,
) -> Result<T, ErrorAnswer> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let understand = move |bytes: &[u8]| Body::read(content_type.as_deref(), bytes).map(|body| read(&body));
    Ok(understood(bytes, understand).await?)
}

/// The name in a path; one that is no text is that of nothing.
struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let name = Path::from_request_parts(parts, state).await;
        let name = name.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path(name)| name);
        Ok(Self(name))
    }
}

/// The first query parameter of that name.
pub(crate) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let mut named = parameters.into_iter().filter(|(found, _)| found == name);
    named.next().map(|(_, value)| value)
}

/// The query parameter of that name, if it is there: a whole number from 1.
fn whole_parameter(uri: &Uri, name: &str, most: u64) -> Result<Option<u64>, ErrorAnswer> {
    let Some(text) = parameter(uri, name) else {
        return Ok(None);
    };
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    let wrong = || {
        ErrorAnswer::bad_request(
            "invalid_request",
            format!("{name} must be a whole number from 1 to {most}"),
        )
    };
    number.map(Some).ok_or_else(wrong)
}

/// So many of a list, after the one of this id, and whether there are more. After what is not there comes nothing.
fn page<T>(all: Vec<T>, after: Option<&str>, limit: u64, id: impl Fn(&T) -> &String) -> (Vec<T>, bool) {
    let first = match after {
        None => 0,
        Some(after) => all
            .iter()
            .position(|one| id(one) == after)
            .map_or(all.len(), |place| place + 1),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = all.len() - first > limit;
    (all.into_iter().skip(first).take(limit).collect(), has_more)
}
