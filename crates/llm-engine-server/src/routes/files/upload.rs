use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use llm_engine_wire::file::Purpose;
use multer::{Constraints, Field, Multipart, SizeLimit};
use schemars::{Schema, SchemaGenerator, json_schema};
use tokio::time::timeout;

use super::super::{answered, new_request_id};
use crate::App;
use crate::authorization::authorize;
use crate::disk;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::files::{Description, FileError, Files, NewFile, Reservation, StoredFile, new_id};
use crate::request_body::{BODY, DISCARD_BYTES};

/// So much is written at once.
const PIECE_BYTES: usize = 1 << 20;
/// The longest of the other fields.
const MAX_FIELD_BYTES: usize = 1024;
const LONGEST_NAME: usize = 255;
/// An hour, and thirty days.
const KEEP_SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

/// The form of an upload.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": { "type": "string", "format": "binary" },
            "purpose": { "enum": Purpose::OF_UPLOADS.map(Purpose::word) },
            "expires_after[anchor]": { "const": "created_at" },
            "expires_after[seconds]": {
                "type": "integer", "minimum": KEEP_SECONDS.start(), "maximum": KEEP_SECONDS.end(),
            },
        },
    })
}

pub(super) async fn upload(State(app): State<App>, request: Request) -> Response {
    let request_id = new_request_id();
    let (parts, body) = request.into_parts();
    answered(
        uploaded(&app, &parts, body).await,
        Dialect::LlmEngine,
        &request_id,
    )
}

async fn uploaded(app: &App, parts: &Parts, body: Body) -> Result<Response, ErrorAnswer> {
    let caller = authorize(&app.gateway, &parts.headers)?;
    let batches = app.batches()?;
    let files = &batches.files;
    let most = files.setup().file_bytes;
    let declared = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    // Most clients listen only when they have sent everything; some ask before.
    if declared > Some(most.saturating_add(DISCARD_BYTES))
        || declared > Some(most.saturating_add(PIECE_BYTES as u64)) && parts.headers.contains_key(EXPECT)
    {
        return Err(FileError::TooLarge(most).into());
    }
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|error| {
        wrong(format!(
            "the body must be multipart/form-data with a field 'file': {error}"
        ))
    })?;
    let limit = SizeLimit::new().whole_stream(most.saturating_add(DISCARD_BYTES));
    let constraints = Constraints::new().size_limit(limit);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let read = read(&mut form, files, &caller.name).await;
    if read.is_err() {
        discard(&mut form).await;
    }
    let upload = read?;
    let description = Description {
        filename: upload.filename,
        purpose: upload.purpose.unwrap_or(Purpose::UserData),
        keep: upload.keep,
        now: batches.now(),
    };
    let (files, new, reservation) = (Arc::clone(files), upload.new, upload.reservation);
    let kept = disk::blocking(move || {
        let kept = files.keep(new, description);
        drop(reservation);
        kept
    });
    let file: Arc<StoredFile> = kept.await.map_err(|error| ErrorAnswer::disk(&error))?;
    Ok(Json(file.shown()).into_response())
}

/// What a form has said.
struct Upload {
    filename: String,
    new: NewFile,
    reservation: Reservation,
    purpose: Option<Purpose>,
    keep: Option<Duration>,
}

async fn read(form: &mut Multipart<'_>, files: &Arc<Files>, owner: &str) -> Result<Upload, ErrorAnswer> {
    let mut file = None;
    let mut purpose = None;
    let mut keep = None;
    while let Some(field) = in_time(form.next_field()).await? {
        match field.name().unwrap_or_default() {
            "file" if file.is_some() => return Err(wrong("there is more than one 'file'")),
            "file" => file = Some(read_file(field, files, owner).await?),
            "purpose" => {
                let word = text(field).await?;
                let words = Purpose::OF_UPLOADS.map(Purpose::word).join(", ");
                let known =
                    super::purpose(&word).ok_or_else(|| wrong(format!("purpose must be one of {words}")))?;
                purpose = Some(known);
            }
            "expires_after[anchor]" => match text(field).await?.as_str() {
                "created_at" => {}
                _ => return Err(wrong("expires_after[anchor] must be created_at")),
            },
            "expires_after[seconds]" => {
                let seconds = text(field)
                    .await?
                    .parse()
                    .ok()
                    .filter(|seconds| KEEP_SECONDS.contains(seconds));
                let (least, most) = KEEP_SECONDS.into_inner();
                let seconds = seconds
                    .ok_or_else(|| wrong(format!("expires_after[seconds] must be from {least} to {most}")))?;
                keep = Some(Duration::from_secs(seconds));
            }
            // What nobody reads is none of our business.
            _ => {}
        }
    }
    let (filename, new, reservation) = file.ok_or_else(|| wrong("there is no field 'file' in the form"))?;
    Ok(Upload {
        filename,
        new,
        reservation,
        purpose,
        keep,
    })
}

async fn read_file(
    mut field: Field<'_>,
    files: &Arc<Files>,
    owner: &str,
) -> Result<(String, NewFile, Reservation), ErrorAnswer> {
    let filename = name(field.file_name().unwrap_or_default());
    let mut reservation = files.reserve(owner)?;
    let (all, owner) = (Arc::clone(files), owner.to_owned());
    let new = disk::blocking(move || all.create(&owner, new_id())).await;
    let mut new = new.map_err(|error| ErrorAnswer::disk(&error))?;
    let mut gathered = BytesMut::new();
    loop {
        let piece = in_time(field.chunk()).await?;
        let is_last = piece.is_none();
        if let Some(piece) = piece {
            reservation.grow(piece.len() as u64)?;
            gathered.extend_from_slice(&piece);
        }
        if gathered.len() >= PIECE_BYTES || is_last {
            let bytes: Bytes = gathered.split().freeze();
            let written = disk::blocking(move || new.write_all(&bytes).map(|()| new)).await;
            new = written.map_err(|error| ErrorAnswer::disk(&error))?;
        }
        if is_last {
            return Ok((filename, new, reservation));
        }
    }
}

/// The last part of a path, as long as names may be.
fn name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown: String = last
        .chars()
        .filter(|character| !character.is_control())
        .take(LONGEST_NAME)
        .collect();
    if shown.is_empty() {
        "file".to_owned()
    } else {
        shown
    }
}

async fn text(mut field: Field<'_>) -> Result<String, ErrorAnswer> {
    let mut bytes = Vec::new();
    while let Some(piece) = in_time(field.chunk()).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_FIELD_BYTES {
            return Err(wrong(format!(
                "a field other than 'file' is longer than {MAX_FIELD_BYTES} bytes"
            )));
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("a field other than 'file' is no UTF-8"))
}

/// The next piece, which must come within the time of a whole other body.
async fn in_time<T>(piece: impl Future<Output = multer::Result<T>>) -> Result<T, ErrorAnswer> {
    let piece = timeout(BODY, piece)
        .await
        .map_err(|_| ErrorAnswer::body_too_slow(BODY))?;
    piece.map_err(|error| wrong(format!("the form can't be read: {error}")))
}

/// Reads on to the end, if it comes: who still sends does not listen.
async fn discard(form: &mut Multipart<'_>) {
    while let Ok(Some(mut field)) = in_time(form.next_field()).await {
        while let Ok(Some(_)) = in_time(field.chunk()).await {}
    }
}

fn wrong(message: impl Into<String>) -> ErrorAnswer {
    ErrorAnswer::bad_request("invalid_request", message.into())
}
