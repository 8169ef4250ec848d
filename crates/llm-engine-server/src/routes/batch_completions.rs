//! LLM Engine's batches. Version 1 can only make them; version 2 knows all.
//!
//! The public servers read and write object stores. Here the paths are of `/v1/files`: the rows are in a file of the caller's, by
//! its id, and the output becomes one, called as it was asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Caller;
use llm_engine_wire::batch_completions::{
    BatchCompletionsRequest, CancelledJob, Content, CreatedJob, FoundJob, Job, Version,
};
use llm_engine_wire::validation::Body;
use tokio::task::spawn_blocking;

use super::{Named, answered, new_request_id, read_laxly, schema_of};
use crate::App;
use crate::api::{Api, Operation};
use crate::arrival::peer_address;
use crate::authorization::authorize;
use crate::batches::{
    Asked, Batch, Batches, Record, Rows, check_content, count_rows, failure, read_content, write_rows,
};
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::replay;
use crate::request_body::read_body;

pub(super) fn add_to(api: &mut Api) {
    let keyed = |operation: Operation, errors: &[u16]| {
        operation
            .tagged("Batches")
            .keyed(Dialect::LlmEngine, &[errors, &[404, 500, 501]].concat())
    };
    let making = [400, 408, 409, 413, 422, 507];
    let v1 = Operation::post(
        "/v1/llm/batch-completions",
        "Has prompts completed, at lower priority",
    );
    let v1 = v1
        .body(|_| schema_of(BatchCompletionsRequest::schema(Version::V1)))
        .json::<CreatedJob>()
        .repeatable();
    api.add(keyed(v1, &making), create_v1);
    let v2 = Operation::post(
        "/v2/batch-completions",
        "Has prompts or requests completed, at lower priority",
    );
    let v2 = v2
        .body(|_| schema_of(BatchCompletionsRequest::schema(Version::V2)))
        .json::<Job>()
        .repeatable();
    api.add(keyed(v2, &making), create_v2);
    let one = Operation::get("/v2/batch-completions/{id}", "A batch, made by either version");
    api.add(keyed(one.json::<FoundJob>(), &[]), get);
    let cancel = Operation::post(
        "/v2/batch-completions/{id}/actions/cancel",
        "Ends a batch: what was done is kept",
    );
    api.add(keyed(cancel.json::<CancelledJob>(), &[507]), self::cancel);
}

const LONGEST_NAME: usize = 255;

async fn create_v1(State(app): State<App>, request: Request) -> Response {
    let create = |State(app): State<App>, request| async move { create(&app, request, Version::V1).await };
    replay::answer(app, request, Dialect::LlmEngine, create).await
}

async fn create_v2(State(app): State<App>, request: Request) -> Response {
    let create = |State(app): State<App>, request| async move { create(&app, request, Version::V2).await };
    replay::answer(app, request, Dialect::LlmEngine, create).await
}

async fn create(app: &App, request: Request, version: Version) -> Response {
    let request_id = new_request_id();
    let (parts, body) = request.into_parts();
    let answer = async {
        let bytes = read_body(&app.gateway, &parts.headers, body).await?;
        let read = move |body: &Body| BatchCompletionsRequest::read(version, body);
        let asked = read_laxly(&parts.headers, &bytes, read).await?;
        let caller = authorize(&app.gateway, &parts.headers)?;
        let asked = asked.map_err(ErrorAnswer::unprocessable)?;
        let batch = created(app, &parts, (&caller, asked, version)).await?;
        let job = batch.record().as_job(batch.counts()).ok_or_else(unknown)?;
        Ok::<_, ErrorAnswer>(match version {
            Version::V1 => Json(CreatedJob { job_id: job.job_id }).into_response(),
            Version::V2 => Json(job).into_response(),
        })
    };
    answered(answer.await, Dialect::LlmEngine, &request_id)
}

async fn created(
    app: &App,
    parts: &Parts,
    (caller, asked, version): (&Caller, BatchCompletionsRequest, Version),
) -> Result<Arc<Batch>, ErrorAnswer> {
    let batches = app.batches()?;
    if asked.wants_tool {
        let message = "tool_config: this server has no tools; leave it out.".to_owned();
        return Err(ErrorAnswer::bad_request("invalid_request", message));
    }
    let unknown_model =
        |_| ErrorAnswer::model_not_found("The specified endpoint could not be found.".to_owned());
    app.gateway.resolve(&asked.model).map_err(unknown_model)?;
    let output = output_name(&asked.output_data_path)?;
    let content = rows(batches, caller, &asked, version).await?;
    check_content(&content, &asked.model)?;
    let (count, most) = (count_rows(&content) as u64, batches.setup.rows);
    if count > most {
        let message =
            format!("There are {count} rows; a batch may have up to {most}. Make several batches of them.");
        return Err(ErrorAnswer::bad_request("too_many_rows", message));
    }
    if count == 0 && version == Version::V1 {
        return Err(ErrorAnswer::bad_request("invalid_request", NO_ROWS.to_owned()));
    }
    let BatchCompletionsRequest {
        input_data_path,
        model,
        model_config,
        max_runtime_seconds,
        priority,
        labels,
        ..
    } = asked;
    let asked = Asked::LlmEngine {
        rows: Rows::of(&content),
        input_data_path,
        output_data_path: output,
        model_config,
        priority,
        labels,
    };
    let (address, now) = (peer_address(parts, &app.trusted_proxies), batches.now());
    let mut record = Record::new(&caller.name, address, asked, now, max_runtime_seconds);
    record.counts.total = count;
    if count == 0 {
        // As the public servers do, which take such a batch and find out later.
        record.fails(vec![failure("no_rows", NO_ROWS)], now);
    }
    let write = move |path: &std::path::Path| write_rows(path, &content, &model);
    Ok(batches.create(record, write).await?)
}

const NO_ROWS: &str =
    "There are no rows: give them as content, or the id of a file with them as input_data_path.";

/// Those of the request, or of the file; none, if there are neither.
async fn rows(
    batches: &Batches,
    caller: &Caller,
    asked: &BatchCompletionsRequest,
    version: Version,
) -> Result<Content, ErrorAnswer> {
    match (&asked.content, &asked.input_data_path) {
        (Some(content), _) => Ok(content.clone()),
        (None, None) => Ok(Content::Requests(Vec::new())),
        (None, Some(id)) => {
            let Some(file) = batches.files.find(&caller.name, id, batches.now()) else {
                let message = format!(
                    "input_data_path is '{id}', which is no file of yours; upload the rows with POST /v1/files and give \
                     its id, such as file-abc123. This server reads no other storage."
                );
                return Err(ErrorAnswer::bad_request("invalid_input", message));
            };
            let path = batches.files.path(&file.id);
            let read = spawn_blocking(move || read_content(&path, version)).await;
            read.map_err(|error| ErrorAnswer::internal(format!("the file could not be read: {error}")))?
        }
    }
}

/// What the file with the answers is called.
fn output_name(path: &str) -> Result<String, ErrorAnswer> {
    let is_name = !path.is_empty()
        && path.chars().count() <= LONGEST_NAME
        && !path.contains("://")
        && !path.chars().any(char::is_control);
    if is_name {
        return Ok(path.to_owned());
    }
    let message = format!(
        "output_data_path is '{path}'; it must be a name of up to {LONGEST_NAME} characters, such as answers.json. The output \
         becomes a file of /v1/files that is called so; this server writes to no other storage."
    );
    Err(ErrorAnswer::bad_request("invalid_output", message))
}

async fn get(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let found = find(&app, &id, &headers).and_then(|batch| {
        let job = batch.record().as_job(batch.counts()).ok_or_else(unknown)?;
        Ok(Json(FoundJob { job }).into_response())
    });
    answered(found, Dialect::LlmEngine, &request_id)
}

async fn cancel(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let answer = async {
        let batch = find(&app, &id, &headers)?;
        let success = app
            .batches()?
            .cancel(&batch)
            .await
            .map_err(|error| ErrorAnswer::disk(&error))?;
        Ok::<_, ErrorAnswer>(Json(CancelledJob { success }).into_response())
    };
    answered(answer.await, Dialect::LlmEngine, &request_id)
}

/// A batch of the caller's that was asked for here; another is as if it were not there.
fn find(app: &App, id: &str, headers: &HeaderMap) -> Result<Arc<Batch>, ErrorAnswer> {
    let caller = authorize(&app.gateway, headers)?;
    let found = app.batches()?.find(&caller.name, id);
    found
        .filter(|batch| matches!(batch.record().asked, Asked::LlmEngine { .. }))
        .ok_or_else(unknown)
}

fn unknown() -> ErrorAnswer {
    ErrorAnswer::nothing_there(
        "batch_not_found",
        "The specified batch completion job could not be found.",
    )
}
