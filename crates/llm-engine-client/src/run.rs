use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use llm_engine_retry::{Attempt, Attempts, Failure, Judgement, Next, Reason};
use reqwest::Url;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use crate::attempt::{self, Read};
use crate::cancel::Cancel;
use crate::client::Shared;
use crate::failed::Failed;
use crate::line::Line;
use crate::lines::LineKey;
use crate::{Call, Error, Waiting};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ATTEMPT: HeaderName = HeaderName::from_static("x-llm-engine-attempt");
const KEEP_SECONDS: HeaderName = HeaderName::from_static("x-llm-engine-keep-seconds");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// One call on its way through its attempts.
pub(crate) struct Run {
    shared: Arc<Shared>,
    call: Call,
    url: Url,
    /// What is the same on each attempt.
    headers: HeaderMap,
    line: Arc<Line>,
    attempts: Attempts<fn() -> f64>,
    /// How long a wait it takes on at most.
    longest_wait: Duration,
    /// How long the call may take, and when that is over; never, if that is further away than clocks reach.
    timeout: Duration,
    deadline: Option<Instant>,
    /// Whether the server keeps a place for the next attempt.
    is_booked: bool,
    cancel: Cancel,
    /// Whether the server may be at work since an attempt before the current one.
    was_armed: bool,
}

/// How an attempt ended that has no answer.
enum Ended {
    Failed(Failed),
    /// The time was over, while it ran or while it still stood in line.
    Late,
    /// Nobody leaves for so long, which is longer than there is time.
    Held(Duration),
}

impl Run {
    pub(crate) fn new(shared: Arc<Shared>, call: Call) -> Result<Self, Error> {
        let timeout = call.timeout.unwrap_or(shared.settings.timeout);
        let line = shared.lines.line(LineKey {
            base_url: shared.base.as_str().to_owned(),
            api_key_digest: shared.api_key_digest,
            model: call.model.clone().unwrap_or_default(),
        });
        line.count_request();
        let now = line.now();
        let retry = call.retry.as_ref().unwrap_or(&shared.settings.retry);
        let random: fn() -> f64 = fastrand::f64;
        let attempts = retry.start(now, now.checked_add(timeout), random);
        let is_unique = call.idempotency_key.is_none();
        let key = call
            .idempotency_key
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string());
        Ok(Self {
            url: shared.base.join(&call.path, &call.query),
            headers: headers(&shared, &call, &key)?,
            line,
            attempts,
            longest_wait: retry.patience(),
            timeout,
            deadline: Instant::now().checked_add(timeout),
            is_booked: false,
            cancel: Cancel::new(shared.clone(), key, is_unique),
            was_armed: false,
            shared,
            call,
        })
    }

    /// Makes attempts until one is read.
    pub(crate) async fn until_read<R: Read>(mut self) -> Result<(R::Output, Self), Error> {
        loop {
            let begun = self.attempts.number();
            let ended = match self.deadline {
                None => self.attempt::<R>().await,
                Some(deadline) => match timeout_at(deadline, self.attempt::<R>()).await {
                    Ok(ended) => ended,
                    Err(_) => Err(Ended::Late),
                },
            };
            let failed = match ended {
                Ok(read) => return Ok((read, self)),
                Err(Ended::Failed(failed)) => failed,
                Err(Ended::Held(held)) => {
                    return Err(self.give_up(Failed::held(held), Reason::Deadline));
                }
                Err(Ended::Late) => {
                    let failed = Failed::deadline(self.timeout);
                    // Not if it never left the line.
                    if self.attempts.number() > begun {
                        self.end_attempt(&failed);
                    }
                    return Err(self.give_up(failed, Reason::Deadline));
                }
            };
            match self.end_attempt(&failed) {
                Next::GiveUp(reason) => return Err(self.give_up(failed, reason)),
                Next::Wait(wait) => self.wait(&failed, wait).await,
            }
        }
    }

    /// The answer is there and has been used: nothing is left to cancel. Returns the attempts that failed.
    pub(crate) fn finish(mut self) -> Vec<Attempt> {
        self.cancel.is_armed = false;
        self.attempts.into_records()
    }

    /// The answer had begun to be used when it broke off.
    pub(crate) fn break_off(mut self, failed: Failed) -> Error {
        self.end_attempt(&failed);
        self.give_up(failed, Reason::Committed)
    }

    /// The number of the current attempt, from 1.
    pub(crate) fn attempt_number(&self) -> u32 {
        self.attempts.number()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn attempt<R: Read>(&mut self) -> Result<R::Output, Ended> {
        let pass = match (&self.call.model, std::mem::take(&mut self.is_booked)) {
            (None, _) => None,
            (Some(_), true) => Some(self.line.leave_booked()),
            (Some(_), false) => {
                let leave = self.line.leave(self.deadline, self.longest_wait);
                Some(leave.await.map_err(Ended::Held)?)
            }
        };
        self.attempts.begin(self.line.now());
        self.was_armed = std::mem::replace(&mut self.cancel.is_armed, self.call.generates());
        let request = self.request::<R>();
        let answer = attempt::make::<R>(request, pass, &self.shared);
        let answer = match self.shared.settings.attempt_timeout {
            None => answer.await,
            Some(limit) => match timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(Failed::too_slow(limit)),
            },
        };
        answer.map_err(Ended::Failed)
    }

    fn request<R: Read>(&self) -> reqwest::RequestBuilder {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(R::ACCEPT));
        headers.insert(ATTEMPT, self.attempts.number().into());
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            headers.insert(REQUEST_TIMEOUT, u64::try_from(left).unwrap_or(u64::MAX).into());
        }
        let transport = &self.shared.transport;
        let mut request = transport
            .request(self.call.method.clone(), self.url.clone())
            .headers(headers);
        if let Some(body) = &self.call.body {
            request = request.body(body.clone());
        }
        request
    }

    fn end_attempt(&mut self, failed: &Failed) -> Next {
        let now = self.line.now();
        let failure = Failure {
            what: failed.to_string(),
            judgement: failed.judgement,
        };
        if failed.status.is_some() {
            // It was answered: nothing is at work there, at most a place is kept.
            self.cancel.is_armed = failed.is_booked() && self.call.generates();
        } else if !failed.was_sent {
            self.cancel.is_armed = self.was_armed;
        }
        let attempts = &mut self.attempts;
        let next = self
            .line
            .with_budget(|budget| attempts.end(now, failure, Some(budget)));
        let is_last = self
            .call
            .max_attempts
            .is_some_and(|most| attempts.number() >= most);
        match next {
            Next::Wait(_) if is_last => Next::GiveUp(Reason::Stopped),
            // The line lets them leave one after the other: so nothing random has to keep apart those who were told the same.
            Next::Wait(wait) if self.call.model.is_some() => Next::Wait(match failed.judgement {
                Judgement::Hinted(hint) => hint.after.min(wait),
                _ => wait,
            }),
            next => next,
        }
    }

    async fn wait(&mut self, failed: &Failed, wait: Duration) {
        self.is_booked = failed.is_booked();
        if let Some(on_wait) = &self.call.on_wait {
            on_wait(&Waiting {
                attempt: self.attempts.number(),
                wait,
                status: failed.status,
                code: failed.code.as_deref(),
                policy: failed.policy.as_deref(),
                message: &failed.message,
                is_booked: self.is_booked,
            });
        }
        sleep(wait).await;
    }

    fn give_up(mut self, failed: Failed, reason: Reason) -> Error {
        self.cancel.is_armed &= !self.call.comes_again;
        Error::new(failed, reason, self.attempts.into_records())
    }
}

fn headers(shared: &Shared, call: &Call, key: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(authorization) = &shared.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if call.body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if call.method == http::Method::POST {
        let key = HeaderValue::try_from(key)
            .map_err(|_| Error::unsent("the idempotency key has characters that no HTTP header may have"))?;
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    let keep = shared.settings.keep.as_secs();
    if call.generates() && keep > 0 {
        headers.insert(KEEP_SECONDS, keep.into());
    }
    for (name, value) in &call.headers {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}

impl Failed {
    pub(crate) fn is_booked(&self) -> bool {
        matches!(self.judgement, Judgement::Hinted(hint) if hint.is_booked)
    }
}
