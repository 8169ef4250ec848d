//! OpenAI's batches.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Caller;
use llm_engine_wire::openai::{Batch as Answer, BatchList, BatchRequest};
use serde_json::json;

use super::{Named, answered, new_request_id, page, parameter, schema_of, whole_parameter};
use crate::App;
use crate::api::{Api, Operation};
use crate::arrival::peer_address;
use crate::authorization::authorize;
use crate::batches::{Asked, Batch, Record, link};
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::replay;
use crate::request_body::read_body;

pub(super) fn add_to(api: &mut Api) {
    let keyed = |operation: Operation, errors: &[u16]| {
        operation
            .tagged("Batches")
            .keyed(Dialect::OpenAi, &[errors, &[500, 501]].concat())
    };
    let create = Operation::post(
        PATH,
        "Has the rows of a file answered, at lower priority, within a day",
    );
    let create = create
        .body(|_| schema_of(BatchRequest::schema()))
        .json::<Answer>()
        .repeatable();
    api.add(keyed(create, &[400, 408, 409, 413, 422, 507]), create_once);
    let text = json!({ "type": "string" });
    let list = Operation::get(PATH, "The caller's batches, the newest first")
        .query("after", false, &text, "Only those after the one of this id")
        .query(
            "limit",
            false,
            &json!({ "type": "integer", "minimum": 1, "maximum": MOST }),
            "How many at most",
        )
        .json::<BatchList>();
    api.add(keyed(list, &[400]), self::list);
    let one = Operation::get("/v1/batches/{id}", "A batch").json::<Answer>();
    api.add(keyed(one, &[404]), get);
    let cancel = Operation::post(
        "/v1/batches/{id}/cancel",
        "Ends a batch: what was done until then is kept",
    );
    api.add(keyed(cancel.json::<Answer>(), &[400, 404, 507]), self::cancel);
}

const PATH: &str = "/v1/batches";
/// Of a page, and how many are on one if nobody says so.
const MOST: u64 = 100;
const USUAL: u64 = 20;
/// A day: the only window that there is.
const WINDOW_SECONDS: u64 = 24 * 60 * 60;

/// However often it is sent with one idempotency key.
async fn create_once(State(app): State<App>, request: Request) -> Response {
    replay::answer(app, request, Dialect::OpenAi, create).await
}

async fn create(State(app): State<App>, request: Request) -> Response {
    let request_id = new_request_id();
    let (parts, body) = request.into_parts();
    let answer = async {
        let caller = authorize(&app.gateway, &parts.headers)?;
        let body = read_body(&app.gateway, &parts.headers, body).await?;
        created(&app, &caller, &parts, &body).await
    };
    answered(answer.await, Dialect::OpenAi, &request_id)
}

async fn created(app: &App, caller: &Caller, parts: &Parts, body: &[u8]) -> Result<Response, ErrorAnswer> {
    let batches = app.batches()?;
    let asked = BatchRequest::parse(body)?;
    let Some(file) = batches
        .files
        .find(&caller.name, &asked.input_file_id, batches.now())
    else {
        let message = format!(
            "There is no file '{}' of yours; upload it first, POST /v1/files.",
            asked.input_file_id
        );
        return Err(ErrorAnswer::bad_request("invalid_request", message).about("input_file_id"));
    };
    let input = batches.files.path(&file.id);
    let asked = Asked::OpenAi {
        endpoint: asked.endpoint.to_owned(),
        input_file_id: asked.input_file_id,
        metadata: asked.metadata,
        output_keep_seconds: asked.output_keep_seconds,
    };
    let address = peer_address(parts, &app.trusted_proxies);
    let record = Record::new(&caller.name, address, asked, batches.now(), WINDOW_SECONDS);
    let batch = batches.create(record, move |rows| link(&input, rows)).await?;
    Ok(shown(&batch)?.into_response())
}

async fn list(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    answered(
        page_of_batches(&app, &uri, &headers),
        Dialect::OpenAi,
        &request_id,
    )
}

fn page_of_batches(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<Response, ErrorAnswer> {
    let caller = authorize(&app.gateway, headers)?;
    let limit = whole_parameter(uri, "limit", MOST)?.unwrap_or(USUAL);
    let all = app.batches()?.list(&caller.name);
    let all = all
        .iter()
        .filter_map(|batch| batch.record().as_openai(batch.counts()))
        .collect();
    let (batches, has_more) = page(
        all,
        parameter(uri, "after").as_deref(),
        limit,
        |batch: &Answer| &batch.id,
    );
    Ok(Json(BatchList::new(batches, has_more)).into_response())
}

async fn get(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let found = find(&app, &id, &headers).and_then(|batch| Ok(shown(&batch)?.into_response()));
    answered(found, Dialect::OpenAi, &request_id)
}

async fn cancel(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    answered(cancelled(&app, &id, &headers).await, Dialect::OpenAi, &request_id)
}

async fn cancelled(app: &App, id: &str, headers: &HeaderMap) -> Result<Response, ErrorAnswer> {
    let batch = find(app, id, headers)?;
    let was_running = app
        .batches()?
        .cancel(&batch)
        .await
        .map_err(|error| ErrorAnswer::disk(&error))?;
    if !was_running {
        return Err(ErrorAnswer::bad_request(
            "batch_ended",
            "The batch has ended already.".to_owned(),
        ));
    }
    Ok(shown(&batch)?.into_response())
}

/// A batch of the caller's that was asked for here; another is as if it were not there.
fn find(app: &App, id: &str, headers: &HeaderMap) -> Result<Arc<Batch>, ErrorAnswer> {
    let caller = authorize(&app.gateway, headers)?;
    let found = app.batches()?.find(&caller.name, id);
    found
        .filter(|batch| matches!(batch.record().asked, Asked::OpenAi { .. }))
        .ok_or_else(unknown)
}

fn shown(batch: &Batch) -> Result<Json<Answer>, ErrorAnswer> {
    batch
        .record()
        .as_openai(batch.counts())
        .map(Json)
        .ok_or_else(unknown)
}

fn unknown() -> ErrorAnswer {
    ErrorAnswer::nothing_there("batch_not_found", "There is no batch of yours with this id.")
}
