//! LLM Engine's second API: what is asked and answered is OpenAI's, how it is checked and refused is LLM Engine's. The order
//! of the checks is that of v1.

use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use llm_engine_gateway::ROUTES;
use llm_engine_wire::openai::Kind;
use llm_engine_wire::v2;

use super::openai::Asked;
use super::{answered, new_request_id, openai_answer, read_laxly, schema_of};
use crate::App;
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::request_body::read_body;

pub(super) fn add_to(api: &mut Api) {
    let operation = |path, summary| {
        let operation = Operation::post(path, summary).passes_failures_on();
        operation.answers("application/json", openai_answer).events()
    };
    api.add_generating(
        operation(ROUTES[4], "A chat completion, as OpenAI's").body(|_| schema_of(v2::schema(Kind::Chat))),
        Dialect::LlmEngine,
        chat_completions,
    );
    api.add_generating(
        operation(ROUTES[5], "A completion, as OpenAI's").body(|_| schema_of(v2::schema(Kind::Completion))),
        Dialect::LlmEngine,
        completions,
    );
}

async fn chat_completions(State(app): State<App>, request: HttpRequest) -> Response {
    complete(&app, (Kind::Chat, ROUTES[4]), request).await
}

async fn completions(State(app): State<App>, request: HttpRequest) -> Response {
    complete(&app, (Kind::Completion, ROUTES[5]), request).await
}

async fn complete(app: &App, asked: (Kind, &'static str), request: HttpRequest) -> Response {
    let request_id = new_request_id();
    let answer = answer(app, asked, request, &request_id).await;
    answered(answer, Dialect::LlmEngine, &request_id)
}

async fn answer(
    app: &App,
    (kind, path): (Kind, &'static str),
    request: HttpRequest,
    request_id: &str,
) -> Result<Response, ErrorAnswer> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(&app.gateway, &parts.headers, body).await?;
    let request = read_laxly(&parts.headers, &bytes, move |body| v2::read(kind, body)).await?;
    let caller = authorize(&app.gateway, &parts.headers)?;
    let request = request?;
    let asked = Asked {
        caller,
        request,
        parts: &parts,
        bytes: &bytes,
        path,
        request_id,
        dialect: Dialect::LlmEngine,
    };
    asked.answer(app).await
}
