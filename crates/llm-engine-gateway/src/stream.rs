use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use llm_engine_wire::openai::{self, Chunk, ErrorBody, Request, Response, Usage};
use llm_engine_wire::sse::Decoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::Failure;
use crate::attempt::within;
use crate::settle::Running;

/// An answer as it comes. Dropped before its end, the request is cancelled at the deployment and charged what was
/// generated until then.
#[derive(Debug)]
pub struct AnswerStream {
    /// `None` once the request has been settled.
    running: Option<Running>,
    body: Incoming,
    decoder: Decoder,
    public_model: String,
    kind: openai::Kind,
    wants_usage: bool,
    wants_continuous_usage: bool,
    usage: Usage,
    /// Whether the deployment itself said what `usage` holds.
    usage_reported: bool,
    /// When the last bytes came: a pause is measured from here, also if [`Self::next`] is called again meanwhile.
    heard: Instant,
    /// Whether the answer has said why it ends, after which it may end without further ceremony.
    finished: bool,
    first: Option<Event>,
    patience: Patience,
}

/// How long a deployment may take once it has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Between two events.
    pub(crate) between: Duration,
    /// When all of the answer must have come, and how long that is after it was asked for.
    pub(crate) end: Option<(Instant, Duration)>,
}

/// One event of an answer.
#[derive(Debug, Clone)]
pub struct Event {
    /// The parts of the chunk that the engine acts on.
    pub chunk: Chunk,
    /// The chunk as a caller of OpenAI's dialect sees it, with all fields of the deployment; `None` if it holds nothing
    /// that the caller asked for.
    pub visible: Option<Map<String, Value>>,
    /// What the request has used so far.
    pub usage: Usage,
}

impl AnswerStream {
    pub(crate) fn begin(
        running: Running,
        body: Incoming,
        request: &Request,
        prompt_tokens: u64,
        patience: Patience,
    ) -> Self {
        Self {
            running: Some(running),
            body,
            decoder: Decoder::default(),
            public_model: request.model.clone(),
            kind: request.kind,
            wants_usage: request.include_usage,
            wants_continuous_usage: request.continuous_usage,
            usage: Usage::new(prompt_tokens, 0),
            usage_reported: false,
            heard: Instant::now(),
            finished: false,
            first: None,
            patience,
        }
    }

    /// Waits for the first event, which must have come by the deadline; `patience` is how long before that the waiting
    /// began.
    pub(crate) async fn with_first_event(
        mut self,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Self, Failure> {
        match within(deadline, patience, self.read(patience)).await {
            Ok(Some(event)) => {
                if let Some(running) = &mut self.running {
                    running.first_event();
                }
                self.first = Some(event);
                Ok(self)
            }
            Ok(None) => Err(self.fail(Failure::Broken("its stream is empty".to_owned()), false)),
            Err(failure) => Err(self.fail(failure, false)),
        }
    }

    /// The next event; `None` at the end, when the request has been settled. Nothing follows a failure. A call that is
    /// dropped before it is over loses nothing.
    pub async fn next(&mut self) -> Option<Result<Event, Failure>> {
        if let Some(event) = self.first.take() {
            return Some(Ok(event));
        }
        self.running.as_ref()?;
        match self.read(self.patience.between).await {
            Ok(Some(event)) => Some(Ok(event)),
            Ok(None) => {
                self.running.take()?.completed();
                None
            }
            Err(failure) => Some(Err(self.fail(failure, true))),
        }
    }

    /// Puts the whole answer together.
    ///
    /// # Errors
    /// [`Failure`] if the deployment does not deliver all of it.
    pub async fn collect(mut self) -> Result<Response, Failure> {
        let mut response = Response::empty(self.kind);
        while let Some(event) = self.next().await {
            response.append(event?.chunk);
        }
        response.model.clone_from(&self.public_model);
        response.usage = self.usage;
        Ok(response)
    }

    /// What the request has used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn fail(&mut self, failure: Failure, begun: bool) -> Failure {
        if let Some(running) = self.running.take() {
            running.failed(&failure, begun);
        }
        failure
    }

    /// Reads up to the next event of the answer; `None` at its end.
    async fn read(&mut self, patience: Duration) -> Result<Option<Event>, Failure> {
        loop {
            let data = self
                .decoder
                .next_event()
                .map_err(|error| Failure::Broken(error.to_string()))?;
            match data {
                Some(data) if data == openai::DONE.as_bytes() => return Ok(None),
                Some(data) => return self.event(&data).map(Some),
                None => match self.more(patience).await? {
                    Some(bytes) => self.decoder.push(&bytes),
                    None if self.finished => return Ok(None),
                    None => return Err(Failure::Broken("its stream broke off".to_owned())),
                },
            }
        }
    }

    /// The next bytes of the body; `None` at its end.
    async fn more(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let pause = (self.heard + patience, patience);
            let (until, patience) = self.patience.end.map_or(pause, |end| end.min(pause));
            let frame = timeout_at(until, self.body.frame());
            let frame = async { frame.await.map_err(|_| Failure::TimedOut(patience)) };
            let frame = match &self.running {
                Some(running) => running.unless_cut_off(frame).await?,
                None => return Ok(None),
            };
            self.heard = Instant::now();
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Broken(format!("its stream broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    fn event(&mut self, data: &[u8]) -> Result<Event, Failure> {
        let nonsense = |error| Failure::Broken(format!("an event of its stream is no chunk: {error}"));
        let value: Value = serde_json::from_slice(data).map_err(nonsense)?;
        if value.get("error").is_some_and(|error| !error.is_null()) {
            let message =
                ErrorBody::deserialize(&value).map_or_else(|_| value.to_string(), |body| body.error.message);
            return Err(Failure::Broken(message));
        }
        if !value.is_object() {
            return Err(Failure::Broken(
                "an event of its stream is no chunk: it is no object".to_owned(),
            ));
        }
        let chunk = Chunk::deserialize(&value).map_err(nonsense)?;
        self.count(&chunk);
        Ok(Event {
            visible: self.visible(value, &chunk),
            chunk,
            usage: self.usage,
        })
    }

    /// The deployment's own numbers where it gives them; else one token for each chunk with text, as an estimate.
    fn count(&mut self, chunk: &Chunk) {
        if let Some(usage) = chunk.usage {
            self.usage = usage;
            self.usage_reported = true;
        } else if chunk.choices.iter().any(|choice| !choice.added_text().is_empty()) {
            let generated = self.usage.completion_tokens.saturating_add(1);
            self.usage = Usage::new(self.usage.prompt_tokens, generated);
            self.usage_reported = false;
        }
        self.finished |= chunk.choices.iter().any(|choice| choice.finish_reason.is_some());
        if let Some(running) = &mut self.running {
            running.count(self.usage, !self.usage_reported);
        }
    }

    /// What the caller shall see of a chunk: under the public name, and without a usage that was only asked for by us.
    fn visible(&self, value: Value, chunk: &Chunk) -> Option<Map<String, Value>> {
        let Value::Object(mut fields) = value else {
            return None;
        };
        let only_usage = chunk.choices.is_empty();
        let keeps_usage = if only_usage {
            self.wants_usage
        } else {
            self.wants_continuous_usage
        };
        if !keeps_usage {
            fields.remove("usage");
        }
        let choices = fields.get("choices").and_then(Value::as_array);
        let adds_nothing = choices.into_iter().flatten().all(says_nothing);
        // A chunk of a remote deployment may carry what we don't act on, such as tool calls; it is always passed on.
        let ours_alone = chunk.usage.is_some() && adds_nothing && !keeps_usage;
        fields.insert("model".to_owned(), self.public_model.as_str().into());
        (!ours_alone).then_some(fields)
    }
}

/// Whether a choice holds nothing but its index and what is empty.
fn says_nothing(choice: &Value) -> bool {
    fn is_nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.values().all(is_nothing),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let fields = choice.as_object();
    fields.is_some_and(|fields| {
        fields
            .iter()
            .all(|(name, value)| name == "index" || is_nothing(value))
    })
}
