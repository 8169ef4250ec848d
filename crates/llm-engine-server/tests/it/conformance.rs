//! Every answer that a test reads is compared with what the document says of its route.

use std::sync::LazyLock;

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::http::response::Parts;
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(llm_engine_server::openapi);

pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// What an answer answers.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
}

/// Fails if the document does not say that such an answer can come.
pub(crate) fn check(asked: &Asked, response: &Parts, body: &str) {
    let Asked { method, path } = asked;
    let status = response.status;
    let Some(operations) = operations(path) else {
        let unrouted = [StatusCode::NOT_FOUND, StatusCode::TEMPORARY_REDIRECT];
        assert!(
            unrouted.contains(&status),
            "{method} {path}, which is no route: {status}"
        );
        return;
    };
    let Some(operation) = operations.get(method.to_lowercase()) else {
        let answer = (method.as_str(), status);
        assert!(
            matches!(answer, ("HEAD", _) | (_, StatusCode::METHOD_NOT_ALLOWED)),
            "{method} {path}, which has no such method: {status}"
        );
        return;
    };
    let documented = &operation["responses"][status.as_str()];
    assert!(
        documented.is_object(),
        "{method} {path}: {status} is not documented: {body}"
    );
    let content_type = response
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap();
    let content = &documented["content"][media_type];
    assert!(
        content.is_object(),
        "{method} {path}: {status} as '{media_type}' is not documented: {body}"
    );
    if media_type == "application/json" {
        let schema = json!({ "allOf": [content["schema"]], "components": DOCUMENT["components"] });
        let body = serde_json::from_str(body).unwrap();
        if let Err(error) = jsonschema::validate(&schema, &body) {
            panic!(
                "{method} {path}: {status}: {body}: {error} at '{}'",
                error.instance_path()
            );
        }
    }
}

/// Those of the path's template: the one with the fewest parts that may be anything.
fn operations(path: &str) -> Option<&'static Value> {
    let templates = DOCUMENT["paths"].as_object().unwrap().iter();
    let fitting =
        templates.filter(|(template, operations)| fits(template, has_several_parts(operations), path));
    let chosen = fitting.min_by_key(|(template, _)| template.matches('{').count());
    chosen.map(|(_, operations)| operations)
}

/// Whether the last part of the path may stand for several.
fn has_several_parts(operations: &Value) -> bool {
    let operation = operations.as_object().unwrap().values().next();
    let parameters = operation.unwrap()["parameters"].as_array().unwrap();
    parameters
        .iter()
        .any(|parameter| parameter["description"] == "It may have slashes in it")
}

fn fits(template: &str, has_several_parts: bool, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let is_long_enough = path.len() == template.len() || has_several_parts && path.len() > template.len();
    let fits =
        |(wanted, found): (&&str, &&str)| wanted == found || wanted.starts_with('{') && !found.is_empty();
    is_long_enough && template.iter().zip(&path).all(fits)
}
