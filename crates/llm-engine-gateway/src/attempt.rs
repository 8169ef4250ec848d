use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use llm_engine_wire::openai::{ErrorBody, Kind, Request, Usage};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::price::{Price, estimate_output_tokens};
use crate::settle::Running;
use crate::stream::AnswerStream;
use crate::{AnswerBody, Failure, Route};

/// How long it may take for a whole answer that is not streamed.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);
/// The longest answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// The longest error message that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// What to wait after a 429 without a hint.
const UPSTREAM_COOLDOWN: Duration = Duration::from_secs(1);

/// A longer hint is a mistake.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 60 * 60);

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
    let stream = request.kind != Kind::Embedding && (request.stream || route.deployment.prefers_stream());
    running.sent(price.cost.input_tokens);
    let patience = if stream {
        route.deployment.first_token_patience()
    } else {
        WHOLE_ANSWER
    };
    let deadline = Instant::now() + patience;
    let head = async {
        let generate = route
            .deployment
            .generate(request, price.max_output_tokens, stream, request_id);
        refuse_errors(generate.await?, request.kind).await
    };
    let response = match running.unless_cut_off(within(deadline, patience, head)).await {
        Ok(response) => response,
        Err(failure) => {
            running.failed(&failure, false);
            return Err(failure);
        }
    };
    if stream {
        let body = response.into_body();
        let stream = AnswerStream::begin(running, body, request, price.cost.input_tokens);
        let stream = stream.with_first_event(deadline, patience).await?;
        return Ok(AnswerBody::Stream(Box::new(stream)));
    }
    match running
        .unless_cut_off(within(deadline, patience, whole(response)))
        .await
    {
        Ok(mut answer) => {
            match answer.get("usage").map(Usage::deserialize) {
                Some(Ok(usage)) => running.count(usage, false),
                Some(Err(_)) | None => {
                    let output_tokens = estimate_output_tokens(&answer).min(price.cost.output_tokens);
                    running.count(Usage::new(price.cost.input_tokens, output_tokens), true);
                }
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

/// `patience` is how long before the deadline the waiting began.
pub(crate) async fn within<T>(
    deadline: Instant,
    patience: Duration,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(deadline, waiting)
        .await
        .unwrap_or(Err(Failure::TimedOut(patience)))
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
async fn refuse_errors(response: Response<Incoming>, kind: Kind) -> Result<Response<Incoming>, Failure> {
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
        // Not every model can; what a deployment that is asked for it has no route for, its model can't.
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, error)
            if kind == Kind::Embedding =>
        {
            let reason = error.map_or_else(|| format!("status {status}"), |error| error.message);
            Failure::Rejected {
                message: format!("the model makes no embeddings: {reason}"),
                code: Some("no_embeddings".to_owned()),
                param: Some("model".to_owned()),
            }
        }
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
        // Whatever else it says is between us and the deployment; of a wrong credential it may quote some or all.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Failure::Broken(format!("status {status}")),
        (_, Some(error)) => Failure::Broken(format!("status {status}: {}", error.message)),
        (_, None) => Failure::Broken(format!("status {status}")),
    })
}

/// The wait that the headers of a 429 ask for: the more exact one of those that make sense.
fn hint(headers: &HeaderMap) -> Option<Duration> {
    let wait = |name, per_second: f64| {
        let number: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        Duration::try_from_secs_f64(number / per_second).ok()
    };
    let wait = wait("retry-after-ms", 1e3).or_else(|| wait("retry-after", 1.0))?;
    Some(wait.min(LONGEST_HINT))
}
