//! One attempt: sends the request, tells the line what the server thought of it, and reads the answer.

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use llm_engine_retry::{Judgement, Limits};
use reqwest::{RequestBuilder, Response};

use crate::Answer;
use crate::client::Shared;
use crate::failed::Failed;
use crate::line::Pass;

/// How a successful answer is read.
pub(crate) trait Read {
    type Output;

    /// What is asked for.
    const ACCEPT: &'static str;

    fn read(response: Response, base: &str) -> impl Future<Output = Result<Self::Output, Failed>> + Send;
}

/// To its end.
pub(crate) struct Whole;

impl Read for Whole {
    type Output = Answer;

    const ACCEPT: &'static str = "application/json";

    async fn read(mut response: Response, base: &str) -> Result<Answer, Failed> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = response.bytes().await;
        Ok(Answer {
            status,
            headers,
            body: body.map_err(|error| Failed::connection(error, base))?,
            failed_attempts: Vec::new(),
        })
    }
}

/// What is read of the body of an error, in bytes.
const LONGEST_ERROR: usize = 64 * 1024;

pub(crate) async fn make<R: Read>(
    request: RequestBuilder,
    pass: Option<Pass>,
    shared: &Shared,
) -> Result<R::Output, Failed> {
    let base = shared.base.as_str();
    // Dropped without a verdict on the way out, the pass tells the line that there was none.
    let response = request
        .send()
        .await
        .map_err(|error| Failed::connection(error, base))?;
    let limits = limits(response.headers());
    if response.status().is_success() {
        if let Some(pass) = pass {
            pass.admitted(limits);
        }
        return R::read(response, base).await;
    }
    let failed = error(response).await;
    if let Some(pass) = pass {
        match failed.judgement {
            Judgement::Hinted(hint) => pass.refused(Some(hint), limits),
            Judgement::Transient if failed.status == Some(StatusCode::TOO_MANY_REQUESTS.as_u16()) => {
                pass.refused(None, limits);
            }
            _ => drop(pass),
        }
    }
    Err(failed)
}

/// The status counts even where the body that explains it breaks off.
async fn error(response: Response) -> Failed {
    let (parts, mut body) = http::Response::from(response).into_parts();
    let mut bytes = Vec::new();
    while bytes.len() < LONGEST_ERROR
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Failed::answer(parts.status, &parts.headers, &bytes)
}

fn limits(headers: &HeaderMap) -> Option<Limits> {
    Limits::from_headers(|name| headers.get(name)?.to_str().ok())
}
