//! OpenAI's routes, answered as OpenAI's clients expect.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{AnswerBody, Caller, CompleteError, Gateway, ROUTES};
use llm_engine_wire::openai::{self, Kind, Model, ModelList, Request};
use serde_json::Value;

use super::{Named, answered, new_request_id, openai_answer, schema_of};
use crate::App;
use crate::api::{Api, Operation};
use crate::arrival::arrival;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::event_stream::{self, Form};
use crate::rate_limit_headers;
use crate::request_body::{read_body, understood};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn add_to(api: &mut Api) {
    let completing = |path, summary| {
        let operation = Operation::post(path, summary).tagged(TAG).passes_failures_on();
        operation.answers("application/json", openai_answer).events()
    };
    api.add_generating(
        completing(ROUTES[2], "A chat completion").body(|_| schema_of(openai::schema(Kind::Chat))),
        Dialect::OpenAi,
        chat_completions,
    );
    api.add_generating(
        completing(ROUTES[3], "A completion").body(|_| schema_of(openai::schema(Kind::Completion))),
        Dialect::OpenAi,
        completions,
    );
    let embedding = Operation::post(ROUTES[6], "Vectors for texts").tagged(TAG);
    let embedding = embedding
        .passes_failures_on()
        .answers("application/json", openai_answer);
    api.add_generating(
        embedding.body(|_| schema_of(openai::schema(Kind::Embedding))),
        Dialect::OpenAi,
        embeddings,
    );
    let list = Operation::get("/v1/models", "The models").tagged(TAG);
    api.add(list.json::<ModelList>().keyed(Dialect::OpenAi, &[]), models);
    let one = Operation::get("/v1/models/{*id}", "A model").tagged(TAG);
    api.add(one.json::<Model>().keyed(Dialect::OpenAi, &[404]), model);
}

const TAG: &str = "OpenAI";

async fn chat_completions(State(app): State<App>, request: HttpRequest) -> Response {
    complete(&app, (Kind::Chat, ROUTES[2]), request).await
}

async fn completions(State(app): State<App>, request: HttpRequest) -> Response {
    complete(&app, (Kind::Completion, ROUTES[3]), request).await
}

async fn embeddings(State(app): State<App>, request: HttpRequest) -> Response {
    complete(&app, (Kind::Embedding, ROUTES[6]), request).await
}

async fn models(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = authorize(&gateway, &headers).map(|_| {
        let names = gateway.routes().iter().flat_map(|route| route.names());
        Json(ModelList {
            object: "list".to_owned(),
            data: names.map(described).collect(),
        })
        .into_response()
    });
    answered(answer, Dialect::OpenAi, &request_id)
}

/// The name may have slashes in it.
async fn model(State(gateway): State<Arc<Gateway>>, Named(name): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let found = match authorize(&gateway, &headers) {
        Ok(_) => gateway.resolve(&name).map_err(ErrorAnswer::from),
        Err(unauthorized) => Err(unauthorized.into()),
    };
    let answer = found.map(|_| Json(described(&name)).into_response());
    answered(answer, Dialect::OpenAi, &request_id)
}

/// The configuration does not say since when there is a model.
fn described(name: &str) -> Model {
    Model {
        id: name.to_owned(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "llm-engine".to_owned(),
    }
}

async fn complete(app: &App, asked: (Kind, &'static str), request: HttpRequest) -> Response {
    let request_id = new_request_id();
    let answer = answer(app, asked, request, &request_id).await;
    answered(answer, Dialect::OpenAi, &request_id)
}

async fn answer(
    app: &App,
    (kind, path): (Kind, &'static str),
    request: HttpRequest,
    request_id: &str,
) -> Result<Response, ErrorAnswer> {
    let gateway = &app.gateway;
    let (parts, body) = request.into_parts();
    let caller = authorize(gateway, &parts.headers)?;
    let bytes = read_body(gateway, &parts.headers, body).await?;
    let request = understood(&bytes, move |bytes| Request::parse(kind, bytes)).await?;
    request.check_stop_count()?;
    let asked = Asked {
        caller,
        request,
        parts: &parts,
        bytes: &bytes,
        path,
        request_id,
        dialect: Dialect::OpenAi,
    };
    asked.answer(app).await
}

/// A request that has been read and checked, on whichever route of OpenAI's shapes.
pub(super) struct Asked<'a> {
    pub(super) caller: Caller,
    pub(super) request: Request,
    pub(super) parts: &'a Parts,
    pub(super) bytes: &'a [u8],
    /// The route, as policies name it.
    pub(super) path: &'static str,
    pub(super) request_id: &'a str,
    /// In which refusals are written.
    pub(super) dialect: Dialect,
}

impl Asked<'_> {
    /// Has it answered by its model, as a stream or whole.
    pub(super) async fn answer(self, app: &App) -> Result<Response, ErrorAnswer> {
        let Self {
            caller,
            request,
            request_id,
            ..
        } = self;
        let gateway = &app.gateway;
        let route = gateway.resolve(&request.model)?;
        let user = request.field("user").and_then(Value::as_str);
        let name = (self.path, request_id);
        let arrival = arrival(self.parts, self.bytes, user, name, &app.trusted_proxies);
        let answer = gateway.complete(&caller, route, &request, &arrival).await;
        let response = match answer {
            Ok(AnswerBody::Stream(answer)) if request.stream => {
                Ok(event_stream::respond(*answer, Form::OpenAi, request_id))
            }
            Ok(AnswerBody::Stream(answer)) => answer
                .collect()
                .await
                .map(|answer| Json(answer).into_response())
                .map_err(CompleteError::Failed),
            Ok(AnswerBody::Whole(answer)) => Ok(([(CONTENT_TYPE, JSON)], answer).into_response()),
            Err(error) => Err(error),
        };
        let refuse = |error| ErrorAnswer::from(error).in_dialect(self.dialect, request_id);
        let mut response = response.unwrap_or_else(refuse);
        rate_limit_headers::add(response.headers_mut(), &gateway.levels(&caller, route, &arrival));
        Ok(response)
    }
}
