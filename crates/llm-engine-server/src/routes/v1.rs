//! LLM Engine's own completions. The order of the checks is part of the contract: malformed JSON, then the key, then
//! every other problem of the request, then whether there is such a model.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::{AnswerBody, AnswerStream, CompleteError, Failure, Fault, ROUTES};
use llm_engine_wire::translate::{to_openai, to_sync_response};
use llm_engine_wire::v1::{CompletionRequest, SyncResponse};
use llm_engine_wire::validation::Body;
use serde_json::json;

use super::{answered, new_request_id, parameter, read_laxly, schema_of};
use crate::App;
use crate::api::{Api, Operation};
use crate::arrival::arrival;
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::event_stream::{self, Form};
use crate::rate_limit_headers;
use crate::request_body::read_body;

pub(super) fn add_to(api: &mut Api) {
    let dialect = Dialect::LlmEngine;
    let whole = operation(Shape::Whole, "A completion").json::<SyncResponse>();
    api.add_generating(whole, dialect, completions_sync);
    let stream = operation(Shape::Stream, "A completion as it comes, in frames").events();
    api.add_generating(stream, dialect, completions_stream);
}

fn operation(shape: Shape, summary: &'static str) -> Operation {
    let name = json!({ "type": "string" });
    Operation::post(shape.route(), summary)
        .query("model_endpoint_name", true, &name, "The model")
        .body(|_| schema_of(CompletionRequest::schema()))
}

async fn completions_sync(State(app): State<App>, request: Request) -> Response {
    complete(&app, request, Shape::Whole).await
}

async fn completions_stream(State(app): State<App>, request: Request) -> Response {
    complete(&app, request, Shape::Stream).await
}

/// In which of the two routes' forms the answer is written.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Whole,
    Stream,
}

impl Shape {
    fn route(self) -> &'static str {
        match self {
            Self::Whole => ROUTES[0],
            Self::Stream => ROUTES[1],
        }
    }

    async fn write(self, answer: AnswerStream, request_id: &str) -> Result<Response, CompleteError> {
        match self {
            Self::Whole => {
                let answer = answer.collect().await?;
                Ok(Json(to_sync_response(request_id, &answer)).into_response())
            }
            Self::Stream => Ok(event_stream::respond(answer, Form::V1, request_id)),
        }
    }

    /// The public servers' words for a model that is not there.
    fn unknown_model(self, model: &str) -> String {
        match self {
            Self::Whole => "The specified endpoint could not be found.".to_owned(),
            Self::Stream => format!("Model endpoint {model} not found."),
        }
    }
}

async fn complete(app: &App, request: Request, shape: Shape) -> Response {
    let request_id = new_request_id();
    let answer = answer(app, request, shape, &request_id).await;
    answered(answer, Dialect::LlmEngine, &request_id)
}

async fn answer(
    app: &App,
    request: Request,
    shape: Shape,
    request_id: &str,
) -> Result<Response, ErrorAnswer> {
    let gateway = &app.gateway;
    let (parts, body) = request.into_parts();
    let bytes = read_body(gateway, &parts.headers, body).await?;
    let model = parameter(&parts.uri, "model_endpoint_name");
    let read = move |body: &Body| CompletionRequest::read(model.as_deref(), body);
    let request = read_laxly(&parts.headers, &bytes, read).await?;
    let caller = authorize(gateway, &parts.headers)?;
    let request = request?;
    let route = gateway.resolve(&request.model);
    let route = route.map_err(|error| ErrorAnswer::model_not_found(shape.unknown_model(&error.name)))?;
    let mut request = to_openai(&request, route.chat_template_for_prompts)?;
    // Always as a stream from the deployment: tokens are counted as they come, and a hang-up is noticed.
    request.stream = true;
    let name = (shape.route(), request_id);
    let arrival = arrival(&parts, &bytes, None, name, &app.trusted_proxies);
    let written = match gateway.complete(&caller, route, &request, &arrival).await {
        Ok(AnswerBody::Stream(answer)) => shape.write(*answer, request_id).await,
        Ok(AnswerBody::Whole(_)) => {
            Err(Failure::Broken("it did not stream although it was asked to".to_owned()).into())
        }
        Err(error) => Err(error),
    };
    let mut response = written.unwrap_or_else(|error| refuse(error, request_id));
    rate_limit_headers::add(response.headers_mut(), &gateway.levels(&caller, route, &arrival));
    Ok(response)
}

/// These routes know one answer for everything that goes wrong behind them.
fn refuse(error: CompleteError, request_id: &str) -> Response {
    let answer = match error {
        CompleteError::Failed(failure)
            if failure.fault() != Fault::Caller && failure.retry_after().is_none() =>
        {
            ErrorAnswer::upstream_service_error(&failure, request_id)
        }
        error => error.into(),
    };
    answer.in_dialect(Dialect::LlmEngine, request_id)
}
