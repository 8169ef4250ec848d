use std::fs::File;
use std::io::{self, Read as _};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::task::spawn_blocking;

use super::super::{Named, answered, new_request_id};
use super::find;
use crate::App;
use crate::disk;
use crate::error_answer::{Dialect, ErrorAnswer};
use crate::files::StoredFile;

const PIECE_BYTES: usize = 256 << 10;

/// The bytes of a file; or, for LLM Engine's clients, a JSON object with its text.
pub(super) async fn content(State(app): State<App>, Named(id): Named, headers: HeaderMap) -> Response {
    let request_id = new_request_id();
    answered(sent(&app, &id, &headers).await, Dialect::LlmEngine, &request_id)
}

async fn sent(app: &App, id: &str, headers: &HeaderMap) -> Result<Response, ErrorAnswer> {
    let file = find(app, id, headers)?;
    let path = app.batches()?.files.path(&file.id);
    let opened = disk::blocking(move || File::open(path)).await;
    let opened = opened.map_err(|error| ErrorAnswer::disk(&error))?;
    Ok(if wants_json(headers) {
        as_json(opened, &file)
    } else {
        as_bytes(opened, &file)
    })
}

/// Whose client asks. The published one of LLM Engine sends the key as `x-api-key` too, ours accepts only JSON; OpenAI's say that
/// they are made by Stainless, and one of their calls accepts JSON without meaning it.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let accepts_json = accepts.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    });
    let is_openai_s = headers.contains_key("x-stainless-lang");
    (accepts_json || headers.contains_key("x-api-key")) && !is_openai_s
}

fn as_bytes(opened: File, file: &StoredFile) -> Response {
    let pieces = stream::unfold(Some(opened), |file| async move {
        let (piece, file) = read(file?).await;
        let has_ended = piece.as_ref().is_ok_and(Bytes::is_empty);
        (!has_ended).then_some((piece, file))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(file.bytes)),
        // Whatever somebody has uploaded, no browser runs it.
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// The object in pieces: a file may be larger than what is in memory for a request.
fn as_json(opened: File, file: &StoredFile) -> Response {
    let id = serde_json::Value::from(file.id.as_str());
    let begin = Bytes::from(format!(r#"{{"id":{id},"content":""#));
    let text = stream::unfold((Some(opened), Vec::new()), |(file, mut rest)| async move {
        let (piece, file) = read(file?).await;
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), (None, rest))),
        };
        if piece.is_empty() {
            return Some((Ok(escaped(&rest)), (None, Vec::new())));
        }
        rest.extend_from_slice(&piece);
        let whole = rest.len() - unfinished(&rest);
        let next = rest.split_off(whole);
        Some((Ok(escaped(&rest)), (file, next)))
    });
    let ends = |bytes: Bytes| stream::once(async move { Ok::<_, io::Error>(bytes) });
    let pieces = futures_util::StreamExt::chain(ends(begin), text);
    let pieces = futures_util::StreamExt::chain(pieces, ends(Bytes::from_static(b"\"}")));
    let content_type = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([content_type], Body::from_stream(pieces)).into_response()
}

/// The next bytes, none at the end; and the file, if there can be more.
async fn read(mut file: File) -> (io::Result<Bytes>, Option<File>) {
    let read = spawn_blocking(move || {
        let mut bytes = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut bytes);
        (read.map(|_| Bytes::from(bytes)), file)
    });
    match read.await {
        Ok((Ok(bytes), file)) => (Ok(bytes), Some(file)),
        Ok((Err(error), _)) => (Err(error), None),
        Err(error) => (Err(io::Error::other(error)), None),
    }
}

/// As it stands in a text of JSON. What is no UTF-8 is replaced.
fn escaped(bytes: &[u8]) -> Bytes {
    let quoted = Bytes::from(serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string());
    quoted.slice(1..quoted.len() - 1)
}

/// How many of the last bytes begin a character that goes on in the next piece.
fn unfinished(bytes: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(bytes.iter().rev()) {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x00..=0x7f => 1,
        };
        return if back < length { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_goes_on_waits_for_its_rest() {
        for (text, cut, waits) in [
            ("aé", 2, 1),
            ("aé", 3, 0),
            ("€", 2, 2),
            ("𝄞", 3, 3),
            ("𝄞", 4, 0),
            ("ab", 2, 0),
            ("", 0, 0),
        ] {
            assert_eq!(unfinished(&text.as_bytes()[..cut]), waits, "{text} {cut}");
        }
        assert_eq!(unfinished(&[0x80, 0x80, 0x80, 0x80]), 0);
    }

    #[test]
    fn text_is_escaped_as_json_and_bytes_that_are_none_are_replaced() {
        assert_eq!(escaped(b"a\"\n\xff"), Bytes::from("a\\\"\\n\u{fffd}"));
        assert_eq!(escaped(b""), Bytes::new());
    }
}
