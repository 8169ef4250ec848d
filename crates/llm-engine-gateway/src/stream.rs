use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Body as _;
use llm_engine_wire::object::{self, Object};
use llm_engine_wire::openai::{self, Assembly, Chunk, Request, Response, Usage};
use llm_engine_wire::sse::Decoder;
use llm_engine_wire::v1::AnswerReader;
use memchr::memchr2;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::Failure;
use crate::answer_error::error_in;
use crate::attempt::within;
use crate::clients::UpstreamBody;
use crate::settle::Running;

/// An answer as it comes. Dropped before its end, the request is cancelled at the deployment and charged what was
/// generated until then.
#[derive(Debug)]
pub struct AnswerStream {
    /// `None` once the request has been settled.
    running: Option<Running>,
    body: UpstreamBody,
    decoder: Decoder,
    /// By what the events are read, if they are not in OpenAI's dialect.
    reader: Option<Box<AnswerReader>>,
    /// What they are in that, as far as it was read.
    read: VecDeque<Vec<u8>>,
    /// The name of the model that answers.
    public_model: String,
    /// The same in JSON.
    model_json: String,
    kind: openai::Kind,
    wants_usage: bool,
    wants_continuous_usage: bool,
    usage: Usage,
    /// Whether the deployment itself said what `usage` holds.
    usage_reported: bool,
    /// How the body has ended.
    end: Option<Result<(), hyper::Error>>,
    /// When the last bytes came: a pause is measured from here, also if [`Self::next`] is called again meanwhile.
    heard: Instant,
    /// Whether the answer has said why it ends, after which it may end without further ceremony.
    finished: bool,
    first: Option<Event>,
    /// Where all of it is put together that comes.
    assembly: Option<Assembly>,
    patience: Patience,
}

/// So much is taken at a time, if it comes that fast.
const ENOUGH_BYTES: usize = 64 * 1024;

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
    /// The chunk as a caller of OpenAI's dialect sees it, in JSON, with all fields of the deployment; `None` if it holds
    /// nothing that the caller asked for.
    pub visible: Option<String>,
    /// What the request has used so far.
    pub usage: Usage,
}

impl AnswerStream {
    pub(crate) fn begin(
        running: Running,
        (body, reader): (UpstreamBody, Option<AnswerReader>),
        (request, public_model): (&Request, &str),
        prompt_tokens: u64,
        patience: Patience,
    ) -> Box<Self> {
        Box::new(Self {
            running: Some(running),
            body,
            decoder: Decoder::default(),
            reader: reader.map(Box::new),
            read: VecDeque::new(),
            public_model: public_model.to_owned(),
            model_json: object::string(public_model),
            kind: request.kind,
            wants_usage: request.include_usage,
            wants_continuous_usage: request.continuous_usage,
            usage: Usage::new(prompt_tokens, 0),
            usage_reported: false,
            end: None,
            heard: Instant::now(),
            finished: false,
            first: None,
            assembly: None,
            patience,
        })
    }

    /// From now on it is kept what comes, for [`Self::whole`].
    pub(crate) fn keep(&mut self) {
        self.assembly = Some(Assembly::new(self.kind));
    }

    /// Waits for the first event, which must have come by the deadline; `patience` is how long before that the waiting
    /// began.
    pub(crate) async fn first_event(&mut self, deadline: Instant, patience: Duration) -> Result<(), Failure> {
        let event = within(deadline, patience, self.read(patience)).await?;
        let event = event.ok_or_else(|| Failure::Broken("its stream is empty".to_owned()))?;
        if let Some(running) = &mut self.running {
            running.first_event();
            running.answered_by(|| Some(event.chunk.model.clone()));
        }
        self.first = Some(event);
        Ok(())
    }

    /// The whole answer as the deployment would have given it, but under the public name.
    pub(crate) async fn whole(mut self: Box<Self>) -> Result<String, (Failure, Running)> {
        match self.put_together().await {
            Ok(answer) => {
                if let Some(running) = self.running.take() {
                    running.completed();
                }
                Ok(answer)
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    async fn put_together(&mut self) -> Result<String, Failure> {
        while let Some(data) = self.data(self.patience.between).await? {
            self.take_in(&data)?;
        }
        let assembly = self.assembly.take().unwrap_or_else(|| Assembly::new(self.kind));
        Ok(assembly.finish(&self.public_model, self.usage))
    }

    /// An event of an answer of which only the whole is wanted.
    fn take_in(&mut self, data: &[u8]) -> Result<(), Failure> {
        let text = std::str::from_utf8(data).unwrap_or_default();
        let usual = self.assembly.as_mut().map(|assembly| assembly.add_usual(text));
        let usual = usual
            .transpose()
            .map_err(|error| Failure::Broken(error.to_string()))?;
        match usual.flatten() {
            Some(has_text) => self.count_chunk(has_text),
            None => drop(self.event(data)?),
        }
        Ok(())
    }

    /// Gives the request back, of which this was an attempt.
    pub(crate) fn failed(mut self: Box<Self>, failure: Failure) -> (Failure, Running) {
        let running = self.running.take();
        (failure, running.expect("it has not ended"))
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
            Err(failure) => {
                if let Some(mut running) = self.running.take() {
                    let is_late = self.patience.end.is_some_and(|(end, _)| end <= Instant::now());
                    if !is_late {
                        running.attempt_failed(&failure).is_guilty();
                    }
                    running.failed(&failure, true);
                }
                Some(Err(failure))
            }
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

    /// Reads up to the next event of the answer; `None` at its end.
    async fn read(&mut self, patience: Duration) -> Result<Option<Event>, Failure> {
        match self.data(patience).await? {
            Some(data) => self.event(&data).map(Some),
            None => Ok(None),
        }
    }

    /// Reads up to the next event: a chunk in OpenAI's dialect.
    async fn data(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(chunk) = self.read.pop_front() {
                return Ok(Some(chunk));
            }
            let data = self
                .decoder
                .next_event()
                .map_err(|error| Failure::Broken(error.to_string()))?;
            match data {
                Some(data) if data == openai::DONE.as_bytes() => return Ok(None),
                Some(mut data) => {
                    // JSON over several lines; it is passed on in one.
                    if memchr2(b'\n', b'\r', &data).is_some() {
                        for byte in data.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')) {
                            *byte = b' ';
                        }
                    }
                    let Some(reader) = &mut self.reader else {
                        return Ok(Some(data));
                    };
                    let broken = |error: &dyn fmt::Display| Failure::Broken(error.to_string());
                    for chunk in reader.event(&data).map_err(|error| broken(&error))? {
                        let chunk = serde_json::to_vec(&chunk).map_err(|error| broken(&error))?;
                        self.read.push_back(chunk);
                    }
                }
                None if self.more(patience).await? => {}
                None if self.finished => return Ok(None),
                None => return Err(Failure::Broken("its stream broke off".to_owned())),
            }
        }
    }

    /// Waits for more of the body, and takes all of it that is there. False at its end.
    async fn more(&mut self, patience: Duration) -> Result<bool, Failure> {
        let pause = (self.heard + patience, patience);
        let (until, patience) = self.patience.end.map_or(pause, |end| end.min(pause));
        let (body, decoder, end) = (&mut self.body, &mut self.decoder, &mut self.end);
        let more = poll_fn(|context| {
            let mut taken = 0;
            while end.is_none() && taken < ENOUGH_BYTES {
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(bytes) = frame.into_data() {
                            taken += bytes.len();
                            decoder.push(&bytes);
                        }
                    }
                    Poll::Ready(Some(Err(error))) => *end = Some(Err(error)),
                    Poll::Ready(None) => *end = Some(Ok(())),
                    Poll::Pending if taken > 0 => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            // What came before the end counts.
            match end.take_if(|_| taken == 0) {
                Some(end) => Poll::Ready(end.map(|()| false)),
                None => Poll::Ready(Ok(true)),
            }
        });
        let more = timeout_at(until, more);
        let more = async { more.await.map_err(|_| Failure::TimedOut(patience)) };
        let more = match &self.running {
            Some(running) => running.unless_cut_off(more).await?,
            None => return Ok(false),
        };
        self.heard = Instant::now();
        more.map_err(|error| Failure::Broken(format!("its stream broke off: {error}")))
    }

    fn event(&mut self, data: &[u8]) -> Result<Event, Failure> {
        let text = std::str::from_utf8(data).ok();
        if let Some((chunk, visible)) = text.and_then(|text| Chunk::read_plain(text, &self.model_json)) {
            self.count(&chunk);
            self.put_aside(text.unwrap_or_default())?;
            return Ok(Event {
                chunk,
                visible: Some(visible),
                usage: self.usage,
            });
        }
        let nonsense = |error: &dyn fmt::Display| {
            Failure::Broken(format!("an event of its stream is no chunk: {error}"))
        };
        let fields = Object::parse_passing(data).map_err(|error| nonsense(&error))?;
        if let Some(failure) = error_in(&fields) {
            return Err(failure);
        }
        let chunk = serde_json::from_slice(data)
            // A name that is there twice makes no chunk, but the last of both does.
            .or_else(|_| Chunk::deserialize(serde_json::from_slice::<Value>(data)?))
            .map_err(|error| nonsense(&error))?;
        self.count(&chunk);
        self.put_aside(text.unwrap_or_default())?;
        Ok(Event {
            visible: self.visible(&fields, &chunk),
            chunk,
            usage: self.usage,
        })
    }

    fn put_aside(&mut self, chunk: &str) -> Result<(), Failure> {
        let added = self.assembly.as_mut().map(|assembly| assembly.add(chunk));
        added
            .transpose()
            .map_err(|error| Failure::Broken(error.to_string()))?;
        Ok(())
    }

    /// The deployment's own numbers where it gives them; else one token for each chunk with text, as an estimate.
    fn count(&mut self, chunk: &Chunk) {
        self.finished |= chunk.choices.iter().any(|choice| choice.finish_reason.is_some());
        match chunk.usage {
            Some(usage) => {
                self.usage = usage;
                self.usage_reported = true;
                self.counted();
            }
            None => self.count_chunk(chunk.choices.iter().any(|choice| !choice.added_text().is_empty())),
        }
    }

    /// A chunk that says nothing of the usage.
    fn count_chunk(&mut self, has_text: bool) {
        if has_text {
            let generated = self.usage.completion_tokens.saturating_add(1);
            self.usage = Usage::new(self.usage.prompt_tokens, generated);
            self.usage_reported = false;
        }
        self.counted();
    }

    fn counted(&mut self) {
        if let Some(running) = &mut self.running {
            running.count(self.usage, !self.usage_reported);
        }
    }

    /// What the caller shall see of a chunk: under the public name, and without a usage that was only asked for by us.
    fn visible(&self, fields: &Object, chunk: &Chunk) -> Option<String> {
        let keeps_usage = if chunk.choices.is_empty() {
            self.wants_usage
        } else {
            self.wants_continuous_usage
        };
        let model = ("model", Some(self.model_json.as_str()));
        if keeps_usage || fields.json("usage").is_none() {
            return Some(fields.with(&[model]));
        }
        // A chunk of a remote deployment may carry what we don't act on, such as tool calls; it is always passed on.
        let choices = fields.value("choices").and_then(Value::as_array);
        let adds_nothing = choices.into_iter().flatten().all(says_nothing);
        let ours_alone = chunk.usage.is_some() && adds_nothing;
        (!ours_alone).then(|| fields.with(&[model, ("usage", None)]))
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
