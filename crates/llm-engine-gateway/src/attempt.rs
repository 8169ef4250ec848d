use std::time::Duration;

use futures_util::FutureExt as _;
use http::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use llm_engine_wire::object::{self, Object};
use llm_engine_wire::openai::{Kind, Request, Usage};
use tokio::time::{Instant, timeout_at};

use crate::answer_error::error_in;
use crate::price::{Price, estimate_output_tokens};
use crate::settle::Running;
use crate::stream::{AnswerStream, Patience};
use crate::{AnswerBody, Failure, Route};

/// How long it may take for a whole answer that is not streamed.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);
/// The longest answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

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
    let trace = running.sent(price.cost.input_tokens, stream);
    let timeouts = route.deployment.timeouts;
    let total = timeouts.total.unwrap_or(WHOLE_ANSWER);
    let patience = if stream {
        timeouts.first_token.min(timeouts.total.unwrap_or(Duration::MAX))
    } else {
        total
    };
    let begun = Instant::now();
    let deadline = begun + patience;
    let head = route
        .deployment
        .generate(request, price.max_output_tokens, stream, (request_id, trace));
    let response = match running.unless_cut_off(within(deadline, patience, head)).await {
        Ok(response) => response,
        Err(failure) => {
            if let Failure::Misconfigured(reason) = &failure {
                tracing::error!(
                    model = route.name,
                    reason,
                    "the deployment can't be used as it is configured"
                );
            }
            running.failed(&failure, false);
            return Err(failure);
        }
    };
    if stream {
        let body = response.into_body();
        let rest = Patience {
            between: timeouts.between_tokens,
            end: timeouts.total.map(|total| (begun + total, total)),
        };
        let stream = AnswerStream::begin(running, body, request, price.cost.input_tokens, rest);
        let stream = stream.with_first_event(deadline, patience).await?;
        return Ok(AnswerBody::Stream(Box::new(stream)));
    }
    match running
        .unless_cut_off(within(deadline, patience, whole(response)))
        .await
    {
        Ok(answer) => {
            running.answered_by(|| serde_json::from_str(answer.json("model")?).ok());
            match answer.json("usage").map(serde_json::from_str) {
                Some(Ok(usage)) => running.count(usage, false),
                Some(Err(_)) | None => {
                    let output_tokens = estimate_output_tokens(&answer).min(price.cost.output_tokens);
                    running.count(Usage::new(price.cost.input_tokens, output_tokens), true);
                }
            }
            running.completed();
            let model = object::string(&request.model);
            Ok(AnswerBody::Whole(answer.with(&[("model", Some(&model))])))
        }
        Err(failure) => {
            running.failed(&failure, false);
            Err(failure)
        }
    }
}

/// `patience` is how long before the deadline the waiting began.
pub(crate) fn within<T>(
    deadline: Instant,
    patience: Duration,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> impl Future<Output = Result<T, Failure>> {
    timeout_at(deadline, waiting).map(move |waited| waited.unwrap_or(Err(Failure::TimedOut(patience))))
}

async fn whole(response: Response<Incoming>) -> Result<Object, Failure> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| Failure::Broken(error.to_string()))?;
    let answer = Object::parse_passing(&body.to_bytes())
        .map_err(|error| Failure::Broken(format!("its answer is not a JSON object: {error}")))?;
    error_in(&answer).map_or(Ok(answer), Err)
}
