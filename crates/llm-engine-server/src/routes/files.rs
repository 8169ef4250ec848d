//! Files, for LLM Engine's clients and OpenAI's on the same routes: answers have what both read.

mod content;
mod upload;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use llm_engine_wire::file::{File, FileContent, FileDeleted, FileList, Purpose};
use serde_json::json;

use super::{Named, answered, new_request_id, page, parameter, whole_parameter};
use crate::App;
use crate::api::{Api, Operation};
use crate::authorization::authorize;
use crate::disk;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::files::StoredFile;

pub(super) fn add_to(api: &mut Api) {
    let text = json!({ "type": "string" });
    let keyed = |operation: Operation, errors: &[u16]| {
        operation
            .tagged(TAG)
            .keyed(Dialect::LlmEngine, &[errors, &[500, 501]].concat())
    };
    let upload = Operation::post(PATH, "Keeps a file")
        .form(upload::schema)
        .json::<File>();
    api.add(keyed(upload, &[400, 408, 413, 507]), upload::upload);
    let list = Operation::get(PATH, "The caller's files, the oldest first")
        .query("purpose", false, &text, "Only those that are for this")
        .query(
            "order",
            false,
            &json!({ "enum": ["asc", "desc"] }),
            "`desc`: the newest first",
        )
        .query("after", false, &text, "Only those after the one of this id")
        .query(
            "limit",
            false,
            &json!({ "type": "integer", "minimum": 1, "maximum": MOST }),
            "How many at most",
        )
        .json::<FileList>();
    api.add(keyed(list, &[400]), self::list);
    let one = Operation::get(ONE, "What is known of a file").json::<File>();
    api.add(keyed(one, &[404]), get);
    let delete = Operation::delete(ONE, "Deletes a file").json::<FileDeleted>();
    api.add(keyed(delete, &[404]), self::delete);
    let content = Operation::get(
        "/v1/files/{id}/content",
        "What is in a file: its bytes, or JSON for LLM Engine's clients",
    )
    .answers(
        "application/octet-stream",
        |_| schemars::json_schema!({ "type": "string", "format": "binary" }),
    )
    .json::<FileContent>();
    api.add(keyed(content, &[404]), content::content);
}

const TAG: &str = "Files";
const PATH: &str = "/v1/files";
const ONE: &str = "/v1/files/{id}";
/// Of a page.
const MOST: u64 = 10_000;

async fn list(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    answered(
        page_of_files(&app, &uri, &headers),
        Dialect::LlmEngine,
        &request_id,
    )
}

fn page_of_files(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<Response, ErrorAnswer> {
    let caller = authorize(&app.gateway, headers)?;
    let batches = app.batches()?;
    let limit = whole_parameter(uri, "limit", MOST)?.unwrap_or(MOST);
    let purpose = parameter(uri, "purpose");
    let is_of = |file: &Arc<StoredFile>| {
        purpose
            .as_ref()
            .is_none_or(|purpose| file.purpose.word() == purpose)
    };
    let mut files: Vec<_> = batches
        .files
        .list(&caller.name, batches.now())
        .into_iter()
        .filter(is_of)
        .collect();
    match parameter(uri, "order").as_deref() {
        None | Some("asc") => {}
        Some("desc") => files.reverse(),
        Some(_) => {
            let message = "order must be asc or desc".to_owned();
            return Err(ErrorAnswer::bad_request("invalid_request", message));
        }
    }
    let (files, has_more) = page(files, parameter(uri, "after").as_deref(), limit, |file| &file.id);
    let files = files.iter().map(|file| file.shown()).collect();
    Ok(Json(FileList::new(files, has_more)).into_response())
}

async fn get(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    let found = find(&app, &id, &headers).map(|file| Json(file.shown()).into_response());
    answered(found, Dialect::LlmEngine, &request_id)
}

async fn delete(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    answered(
        deleted(&app, &id, &headers).await,
        Dialect::LlmEngine,
        &request_id,
    )
}

/// A batch whose rows are in it goes on.
async fn deleted(app: &App, id: &str, headers: &HeaderMap) -> Result<Response, ErrorAnswer> {
    let file = find(app, id, headers)?;
    let (files, deleted) = (Arc::clone(&app.batches()?.files), Arc::clone(&file));
    let result = disk::blocking(move || files.delete(&deleted)).await;
    result.map_err(|error| ErrorAnswer::disk(&error))?;
    let answer = FileDeleted {
        id: file.id.clone(),
        object: "file",
        deleted: true,
    };
    Ok(Json(answer).into_response())
}

/// A file of the caller's; another's is as if it were not there.
fn find(app: &App, id: &str, headers: &HeaderMap) -> Result<Arc<StoredFile>, ErrorAnswer> {
    let caller = authorize(&app.gateway, headers)?;
    let batches = app.batches()?;
    let file = batches.files.find(&caller.name, id, batches.now());
    file.ok_or_else(|| ErrorAnswer::nothing_there("file_not_found", "The specified file could not be found."))
}

/// What may be said of an upload.
fn purpose(word: &str) -> Option<Purpose> {
    Purpose::OF_UPLOADS
        .into_iter()
        .find(|purpose| purpose.word() == word)
}
