use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use llm_engine_wire::openai::{ErrorBody, Request};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::price::Price;
use crate::settle::Running;
use crate::stream::AnswerStream;
use crate::{AnswerBody, Failure, Route};

/// How long a deployment may take until the first token.
pub(crate) const FIRST_TOKEN: Duration = Duration::from_secs(120);
/// How long it may take for a whole answer that is not streamed.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);
/// The longest answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// The longest error message that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// What to wait after a 429 without a hint.
const UPSTREAM_COOLDOWN: Duration = Duration::from_secs(1);

/// Sends the request to the route's deployment and returns when its answer has begun: the first token of a stream, or
/// the whole of an answer that is not streamed. Until then nothing has been said to the caller, who can be told of a
/// failure by an HTTP status.
pub(crate) async fn attempt(
    route: &Route,
    request: &Request,
    price: Price,
    request_id: &str,
    mut running: Running,
) -> Result<AnswerBody, Failure> {
    let stream = request.stream || route.deployment.prefers_stream();
    running.sent(price.cost.input_tokens);
    let deadline = if stream { FIRST_TOKEN } else { WHOLE_ANSWER };
    let head = async {
        let generate = route
            .deployment
            .generate(request, price.max_output_tokens, stream, request_id);
        refuse_errors(generate.await?).await
    };
    let response = match running.unless_cut_off(within(deadline, head)).await {
        Ok(response) => response,
        Err(failure) => {
            running.failed(&failure, false);
            return Err(failure);
        }
    };
    if stream {
        let stream =
            AnswerStream::begin(running, response.into_body(), request, price.cost.input_tokens).await?;
        return Ok(AnswerBody::Stream(Box::new(stream)));
    }
    match running.unless_cut_off(within(deadline, whole(response))).await {
        Ok(mut answer) => {
            if let Some(usage) = answer
                .get("usage")
                .and_then(|usage| serde_json::from_value(usage.clone()).ok())
            {
                running.count(usage, false);
            }
            answer.insert("model".to_owned(), request.model.as_str().into());
            running.completed();
            Ok(AnswerBody::Whole(answer))
        }
        Err(failure) => {
            running.failed(&failure, false);
            Err(failure)
        }
    }
}

async fn within<T>(
    deadline: Duration,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(deadline, waiting)
        .await
        .unwrap_or(Err(Failure::TimedOut(deadline)))
}

async fn whole(response: Response<Incoming>) -> Result<Map<String, Value>, Failure> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| Failure::Broken(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Failure::Broken(format!("its answer is not a JSON object: {error}")))
}

/// Passes a success on and turns everything else into a failure.
async fn refuse_errors(response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let retry_after = hint(response.headers()).unwrap_or(UPSTREAM_COOLDOWN);
        return Err(Failure::Limited { retry_after });
    }
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES)
        .collect()
        .await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let error = serde_json::from_slice::<ErrorBody>(&body)
        .ok()
        .map(|body| body.error);
    Err(match (status, error) {
        (
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY,
            error,
        ) => {
            let (message, code, param) = match error {
                Some(error) => (error.message, error.code.as_str().map(str::to_owned), error.param),
                None => (
                    format!("the model server refuses the request with status {status}"),
                    None,
                    None,
                ),
            };
            Failure::Rejected { message, code, param }
        }
        // Whatever else it says is between us and the deployment: a wrong credential of ours, a model that it lacks.
        (_, Some(error)) => Failure::Broken(format!("status {status}: {}", error.message)),
        (_, None) => Failure::Broken(format!("status {status}")),
    })
}

/// The wait that the headers of a 429 ask for.
fn hint(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let milliseconds = number("retry-after-ms").map(|milliseconds| milliseconds / 1e3);
    let seconds = milliseconds.or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}
