//! The page about rate limits. No key is needed, and nothing limits it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use llm_engine_gateway::Gateway;

use crate::api::{Api, Operation};
use crate::rate_limits_page;

pub(super) fn add_to(api: &mut Api) {
    let page = |path| Operation::get(path, "The limits in force, and how to retry").tagged("Server");
    let either = page("/rate-limits").text("text/html").text("text/markdown");
    api.add(either, self::page);
    api.add(page("/rate-limits.md").text("text/markdown"), markdown);
}

/// In HTML, or in Markdown for those who rather read that.
async fn page(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let markdown = rate_limits_page::markdown(&gateway.policies()).await;
    let mut response = if prefers_markdown(&headers) {
        respond("text/markdown; charset=utf-8", markdown)
    } else {
        respond("text/html; charset=utf-8", rate_limits_page::html(&markdown))
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    response
}

async fn markdown(State(gateway): State<Arc<Gateway>>) -> Response {
    let markdown = rate_limits_page::markdown(&gateway.policies()).await;
    respond("text/markdown; charset=utf-8", markdown)
}

fn respond(content_type: &'static str, body: String) -> Response {
    // The configuration may change at any time.
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], body).into_response()
}

/// Whether `Accept` names Markdown and likes it no less than HTML. Browsers don't name it.
fn prefers_markdown(headers: &HeaderMap) -> bool {
    let html = ["text/html", "text/*", "*/*"];
    let html = html.into_iter().find_map(|range| quality(headers, range));
    quality(headers, "text/markdown")
        .is_some_and(|markdown| markdown > 0.0 && markdown >= html.unwrap_or(0.0))
}

/// How much `Accept` likes a media range, from 0 to 1, if it names it.
fn quality(headers: &HeaderMap, wanted: &str) -> Option<f32> {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        Some(quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0))
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use llm_engine_gateway::{PolicySetup, ProxySetup, Setup};

    use super::*;

    async fn shown(gateway: &Arc<Gateway>) -> String {
        let response = markdown(State(Arc::clone(gateway))).await;
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn after_a_reload_the_new_limits_are_shown() {
        let policy = |name: &str| PolicySetup {
            name: name.to_owned(),
            concurrency: std::num::NonZeroU32::new(7),
            ..PolicySetup::default()
        };
        let setup = Setup {
            models: Vec::new(),
            callers: Vec::new(),
            policies: vec![policy("old")],
            socket_folder: std::env::temp_dir(),
            journal: None,
            proxies: ProxySetup::default(),
            telemetry: None,
            wall_clock: jiff::Timestamp::now,
        };
        let gateway = Arc::new(Gateway::start(setup).expect("a gateway"));
        let before = shown(&gateway).await;
        assert!(before.contains("\n| old |") && !before.contains("\n| new |"));
        gateway.reload(Vec::new(), vec![policy("new")]).expect("a reload");
        let after = shown(&gateway).await;
        assert!(after.contains("\n| new |") && !after.contains("\n| old |"));
    }

    fn prefers(accept: &'static str) -> bool {
        prefers_markdown(&HeaderMap::from_iter([(
            ACCEPT,
            HeaderValue::from_static(accept),
        )]))
    }

    #[test]
    fn who_names_markdown_gets_it_unless_html_is_liked_better() {
        assert!(prefers("text/markdown"));
        assert!(prefers("Text/Markdown;q=0.9, text/html;q=0.8"));
        assert!(prefers("text/markdown, text/html, */*"));
        assert!(prefers(
            "application/json, text/markdown; charset=utf-8; q=0.5, */*; q=0.1"
        ));
        assert!(!prefers("text/html, text/markdown;q=0.9"));
        assert!(!prefers("text/markdown;q=0.5, */*"));
        assert!(!prefers("text/markdown;q=0"));
    }

    #[test]
    fn everybody_else_gets_html() {
        assert!(!prefers(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        ));
        assert!(!prefers("*/*"));
        assert!(!prefers("text/*"));
        assert!(!prefers(""));
        assert!(!prefers_markdown(&HeaderMap::new()));
    }
}
