use std::time::Duration;

use futures_util::FutureExt as _;
use http::Response;
use http_body_util::{BodyExt, Limited};
use llm_engine_wire::object::{self, Object};
use llm_engine_wire::openai::{Request, Usage};
use llm_engine_wire::v1::AnswerReader;
use tokio::time::{Instant, timeout_at};

use crate::answer_error::{error_in, is_whole};
use crate::choose::{Chosen, Suspect, Tried};
use crate::clients::UpstreamBody;
use crate::deployment::{Deployment, Told};
use crate::price::estimate_output_tokens;
use crate::settle::Running;
use crate::stream::{AnswerStream, Patience};
use crate::{AnswerBody, Arrival, Failure, Route};

/// How long it may take for a whole answer that is not streamed.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);
/// The longest answer that is not streamed.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A request on its way to deployments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub(crate) route: &'a Route,
    pub(crate) request: &'a Request,
    /// The name of the model as its caller shall see it.
    pub(crate) public_model: &'a str,
    pub(crate) request_id: &'a str,
    /// When its caller gives up.
    pub(crate) deadline: Option<Instant>,
}

impl<'a> Sending<'a> {
    pub(crate) fn new(route: &'a Route, request: &'a Request, arrival: &Arrival<'a>) -> Self {
        Self {
            route,
            request,
            public_model: &request.model,
            request_id: arrival.request_id,
            deadline: arrival.deadline,
        }
    }

    /// Whether its caller has given up.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Sends the request to the deployment that was chosen for it and returns when its answer has begun: the first token of a
    /// stream, or the whole of an answer that is not streamed. Until then nothing has been said to the caller: where a deployment
    /// fails another one is asked, and the caller is told of a failure only if that is of no use.
    ///
    /// A failed request is handed back unless it has been settled.
    pub(crate) async fn answer(self, mut running: Running) -> Result<AnswerBody, (Failure, Running)> {
        let mut tried = Tried::default();
        let mut suspects = Vec::new();
        self.route.count_request();
        loop {
            let deployment = running.deployment();
            let failure;
            (failure, running) = match self.attempt(&deployment, running).await {
                Ok(answer) => {
                    suspects.iter().for_each(Suspect::is_guilty);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let is_late = self.is_late();
            if is_late && matches!(failure, Failure::TimedOut(_)) {
                // It might have answered in time, had its caller waited.
                return Err((failure, running));
            }
            tried.add(&deployment);
            let suspect = running.attempt_failed(&failure);
            let next = self.next(&failure, tried, &running).filter(|_| !is_late);
            let Some(next) = next else {
                // What several deployments answer badly is the request's fault, and nobody shall be able to have them all ejected.
                if suspects.is_empty() || !suspect.may_be_innocent() {
                    suspect.is_guilty();
                }
                return Err((failure, running));
            };
            if suspect.may_be_innocent() {
                suspects.push(suspect);
            } else {
                suspect.is_guilty();
            }
            running.goes_to(next);
        }
    }

    /// The deployment that is asked after such a failure, if one may be.
    fn next(self, failure: &Failure, tried: Tried, running: &Running) -> Option<Chosen> {
        if !failure.is_of_the_deployment() || !self.route.has_untried(tried) {
            return None;
        }
        let cost = running.price().cost;
        let chosen = self.route.choose(self.request, cost, tried, running.has_place());
        chosen.ok().filter(|_| self.route.may_retry(failure))
    }

    async fn attempt(
        self,
        deployment: &Deployment,
        mut running: Running,
    ) -> Result<AnswerBody, (Failure, Running)> {
        let request = self.request;
        let price = running.price();
        let stream = deployment.streams(request);
        let trace = running.sent(price.cost.input_tokens, stream);
        let timeouts = deployment.timeouts;
        let total = timeouts.total.unwrap_or(WHOLE_ANSWER);
        let begun = Instant::now();
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(begun));
        let within_left = |patience: Duration| left.map_or(patience, |left| left.min(patience));
        let patience = within_left(if stream {
            timeouts.first_token.min(timeouts.total.unwrap_or(Duration::MAX))
        } else {
            total
        });
        let deadline = begun + patience;
        let told = Told {
            request_id: self.request_id,
            left,
            trace,
        };
        let head = deployment.generate(request, price.max_output_tokens, stream, told);
        let (response, reader) = match running.unless_cut_off(within(deadline, patience, head)).await {
            Ok(answer) => answer,
            Err(failure) => {
                if let Failure::Misconfigured(reason) = &failure {
                    tracing::error!(
                        model = self.route.name.as_str(),
                        reason,
                        "the deployment can't be used as it is configured"
                    );
                }
                return Err((failure, running));
            }
        };
        if stream && !is_whole(&response) {
            let end = timeouts.total.or(left).map(within_left);
            let rest = Patience {
                between: timeouts.between_tokens,
                end: end.map(|total| (begun + total, total)),
            };
            let named = (request, self.public_model);
            let body = response.into_body();
            let is_kept = !request.stream && deployment.is_remote();
            let mut answer =
                AnswerStream::begin(running, (body, reader), named, price.cost.input_tokens, rest);
            if is_kept {
                answer.keep();
            }
            if let Err(failure) = answer.first_event(deadline, patience).await {
                return Err(answer.failed(failure));
            }
            if is_kept {
                return answer.whole().await.map(AnswerBody::Whole);
            }
            return Ok(AnswerBody::Stream(answer));
        }
        match running
            .unless_cut_off(within(deadline, patience, whole(response, reader)))
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
                let model = object::string(self.public_model);
                Ok(AnswerBody::Whole(answer.with(&[("model", Some(&model))])))
            }
            Err(failure) => Err((failure, running)),
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

async fn whole(response: Response<UpstreamBody>, reader: Option<AnswerReader>) -> Result<Object, Failure> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    let body = body.map_err(|error| Failure::Broken(error.to_string()))?;
    let mut body = body.to_bytes();
    if let Some(reader) = reader {
        let answer = reader.whole(&body);
        body = answer.map_err(|error| Failure::Broken(error.to_string()))?.into();
    }
    let answer = Object::parse_passing(&body)
        .map_err(|error| Failure::Broken(format!("its answer is not a JSON object: {error}")))?;
    error_in(&answer).map_or(Ok(answer), Err)
}
