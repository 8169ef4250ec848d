use hyper::StatusCode;
use scripted_upstream::{Upstream, freeze};

use crate::harness::{Answer, Server};

const PAGE: &str = "/rate-limits";
const MARKDOWN: &str = "/rate-limits.md";
const HTML_TYPE: &str = "text/html; charset=utf-8";
const MARKDOWN_TYPE: &str = "text/markdown; charset=utf-8";

/// Where nobody answers, and a name by which a leak would be seen.
const UPSTREAM: &str = "http://upstream.invalid/v1";

/// Asks without a key.
async fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = Answer::read(server.send(method, target, headers, None).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    answer
}

async fn markdown(policies: &str) -> String {
    let server = Server::start(UPSTREAM, policies).await;
    ask(&server, "GET", MARKDOWN, &[]).await.body
}

/// The cells of each row of the table of limits.
fn limits(page: &str) -> Vec<Vec<&str>> {
    let (_, section) = page.split_once("## The limits that apply now\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

const AS_NEEDED: &str =
    "equests are refused with **429 Too Many Requests** as needed, when the models are full.";
const OTHERS: &str = "Some callers have other limits; ask `GET /v1/limits` with your key.";

#[tokio::test]
async fn the_configured_limits_are_listed_those_of_deployments_as_their_model_s() {
    let page = markdown(&format!(
        "price = {{ input_usd_per_million = 1.0, output_usd_per_million = 1.0 }}
[[policies]]
name = 'per-key'
per = ['key', 'model']
requests = {{ limit = 60, window = '1m', burst = 10 }}
concurrency = 8
hold = '30s'
[[policies]]
name = 'chat-day'
match = {{ model = 'm', route = '/v1/chat/completions' }}
usd = {{ limit = 20.0, window = 'calendar-day', time_zone = 'Europe/Berlin' }}
[[policies]]
name = 'hour'
per = ['address']
output_tokens = {{ limit = 200_000, window = '1h', burst = 50_000, strict = true }}
[models.n]
[[models.n.deployments]]
url = '{UPSTREAM}'
model = 'secret'
requests = {{ limit = 500, window = '1m' }}"
    ))
    .await;
    assert_eq!(
        limits(&page),
        [
            [
                "per-key",
                "60 requests per minute (at most 10 at once); 8 requests at the same time",
                "each key and model",
                "every request",
                "held up to 30 s"
            ],
            [
                "chat-day",
                "$20.00 per calendar day (Europe/Berlin)",
                "all together",
                "model m and route /v1/chat/completions",
                "none"
            ],
            [
                "hour",
                "200000 output tokens per hour (at most 50000 at once, in any window)",
                "each address",
                "every request",
                "none"
            ],
            [
                "n.deployment",
                "500 requests per minute",
                "all together",
                "model n",
                "none"
            ],
        ]
    );
    assert!(page.contains(&format!("Besides that, r{AS_NEEDED}")));
    assert!(!page.contains(OTHERS));
    assert!(!page.contains("upstream.invalid") && !page.contains("secret"));
}

#[tokio::test]
async fn without_policies_it_says_that_no_limits_are_advertised() {
    let page = markdown("").await;
    assert_eq!(limits(&page), Vec::<Vec<&str>>::new());
    assert!(page.contains(&format!("No limits are advertised at the moment. R{AS_NEEDED}")));
    assert!(!page.contains(OTHERS));
}

#[tokio::test]
async fn a_policy_that_only_observes_is_not_there() {
    let page = markdown(
        "[[policies]]\nname = 'watched'\nmode = 'observe'\nrequests = { limit = 7, window = '1m' }
[[policies]]\nname = 'watched-k'\nmode = 'observe'\nmatch = { caller = 'k' }\nconcurrency = 7",
    )
    .await;
    assert!(page.contains("No limits are advertised"));
    assert!(!page.contains("watched") && !page.contains(OTHERS));
}

#[tokio::test]
async fn who_the_callers_are_is_not_said() {
    let page = markdown(
        "[callers.alice]
team = 'research'
trusted_users = true
api_key_sha256 = '2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90'
[[policies]]\nname = 'of-alice'\nmatch = { caller = 'alice' }\nconcurrency = 7
[[policies]]\nname = 'of-research'\nmatch = { team = 'research' }\nconcurrency = 7
[[policies]]\nname = 'of-zoe'\nmatch = { user = 'zoe', model = 'm' }\nconcurrency = 7",
    )
    .await;
    assert!(page.contains("No limits are advertised") && page.contains(OTHERS));
    for secret in ["alice", "research", "zoe", "2bd806", "8254c3", "upstream.invalid"] {
        assert!(!page.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn names_are_escaped() {
    let server = Server::start(
        UPSTREAM,
        &format!(
            "[models.'<script>|[x](y)']\ndeployments = [{{ url = '{UPSTREAM}', model = 'x' }}]
[[policies]]\nname = 'a_b_c'\nmatch = {{ model = '<script>|[x](y)' }}\nconcurrency = 7"
        ),
    )
    .await;
    let html = ask(&server, "GET", PAGE, &[]).await.body;
    assert!(html.contains("<td>a_b_c</td>"));
    assert!(html.contains("<td>model &lt;script&gt;|[x](y)</td>"), "{html}");
    assert!(!html.contains("<script"));
}

#[tokio::test]
async fn it_is_html_unless_markdown_is_asked_for() {
    let server = Server::start(UPSTREAM, "").await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for accept in [browser, "*/*"] {
        let page = ask(&server, "GET", PAGE, &[("accept", accept)]).await;
        assert_eq!(page.header("content-type"), Some(HTML_TYPE));
        assert_eq!(page.header("vary"), Some("accept"));
        assert!(page.body.starts_with("<!DOCTYPE html>\n<html lang=\"en\">\n"));
        assert!(page.body.ends_with("</body>\n</html>\n"));
        assert!(
            page.body.contains("<title>Rate limits</title>") && page.body.contains("<h1>Rate limits</h1>")
        );
        assert!(page.body.contains("<meta charset=\"utf-8\">") && page.body.contains("name=\"viewport\""));
    }
    let markdown = ask(&server, "GET", MARKDOWN, &[("accept", browser)]).await;
    assert_eq!(markdown.header("content-type"), Some(MARKDOWN_TYPE));
    assert!(markdown.body.starts_with("# Rate limits\n"));

    let negotiated = ask(&server, "GET", PAGE, &[("accept", "text/markdown")]).await;
    assert_eq!(negotiated.header("content-type"), Some(MARKDOWN_TYPE));
    assert_eq!(negotiated.header("vary"), Some("accept"));
    assert_eq!(negotiated.body, markdown.body);
}

#[tokio::test]
async fn head_is_get_without_the_body_and_nothing_else_is_allowed() {
    let server = Server::start(UPSTREAM, "").await;
    for target in [PAGE, MARKDOWN] {
        let get = ask(&server, "GET", target, &[]).await;
        let head = ask(&server, "HEAD", target, &[]).await;
        assert_eq!(head.body, "");
        for name in ["content-type", "content-length"] {
            assert_eq!(head.header(name), get.header(name));
        }
        let post = server.send("POST", target, &[], Some("")).await;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

/// What stands between the fences of the page's only block in this language.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("\n```\n").unwrap().0
}

#[tokio::test]
async fn the_example_is_what_the_server_answers_in_that_case_but_for_the_request_id() {
    let _frozen = freeze();
    let upstream = Upstream::answering(|exchange| exchange.answer_words(3, &["a"])).await;
    let policy = "[[policies]]\nname = 'per-key'\nper = ['key']\nrequests = { limit = 100, window = '1m', burst = 10 }";
    let server = Server::start(&upstream, policy).await;
    for _ in 0..10 {
        assert_eq!(server.complete().await.status, StatusCode::OK);
    }
    let refused = server.complete().await;

    let page = ask(&server, "GET", MARKDOWN, &[]).await.body;
    let mut body: serde_json::Value = serde_json::from_str(block(&page, "json")).unwrap();
    assert_ne!(body["error"]["request_id"], refused.json()["error"]["request_id"]);
    body["error"]["request_id"] = refused.json()["error"]["request_id"].clone();
    assert_eq!(body, refused.json());

    let mut lines = block(&page, "http").lines();
    assert_eq!(lines.next(), Some("HTTP/1.1 429 Too Many Requests"));
    let mut shown: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let mut real: Vec<(&str, &str)> = refused
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .filter(|(name, _)| !["content-length", "date"].contains(name))
        .collect();
    for headers in [&mut shown, &mut real] {
        headers.sort_unstable();
        let id = headers.iter_mut().find(|(name, _)| *name == "x-request-id");
        id.unwrap().1 = "";
    }
    assert_eq!(shown, real);
}

#[tokio::test]
async fn the_headers_that_it_explains_are_those_that_are_sent() {
    let page = markdown("").await;
    let head = block(&page, "http");
    let names = head.lines().skip(1).map(|line| line.split_once(": ").unwrap().0);
    for name in names.filter(|name| *name != "content-type") {
        let row = page.lines().find(|line| {
            let line = line.to_lowercase();
            line.starts_with('|') && line.contains(&format!("`{name}`"))
        });
        assert!(row.is_some(), "{name}");
    }
}

#[tokio::test]
async fn the_published_examples_are_there_as_they_are() {
    let server = Server::start(UPSTREAM, "").await;
    let markdown = ask(&server, "GET", MARKDOWN, &[]).await.body;
    let html = ask(&server, "GET", PAGE, &[]).await.body;
    for file in ["with_tenacity.py", "with_backoff.py"] {
        let path = format!("{}/../../examples/{file}", env!("CARGO_MANIFEST_DIR"));
        let example = std::fs::read_to_string(path).unwrap();
        let example = example.trim_end();
        assert!(
            markdown.contains(&format!("\n```python\n{example}\n```\n")),
            "{file}"
        );
        let shown = format!(
            "<pre><code class=\"language-python\">{}\n</code></pre>",
            example.replace('"', "&quot;")
        );
        assert!(
            html.contains(&shown) || html.contains(&shown.replace("&quot;", "\"")),
            "{file}"
        );
    }
}
