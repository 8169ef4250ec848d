use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::object::{self, Object, ObjectError, Texts};

/// Which of the routes that ask a model a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/chat/completions`
    Chat,
    /// `/completions`
    Completion,
    /// `/embeddings`, whose answers have no tokens and are never streamed.
    Embedding,
}

impl Kind {
    /// The route's path below an upstream's base URL.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completion => "/completions",
            Self::Embedding => "/embeddings",
        }
    }
}

/// A request in OpenAI's dialect. What the engine acts on has been read and checked; the rest is kept as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The route that it is for.
    pub kind: Kind,
    /// The public name of the model.
    pub model: String,
    /// How many messages the chat has.
    pub messages: usize,
    /// Whether the answer is wanted as a stream of chunks.
    pub stream: bool,
    /// Whether the caller asked for a last chunk with the usage.
    pub include_usage: bool,
    /// Whether every chunk shall carry the usage so far (vLLM's extension).
    pub continuous_usage: bool,
    /// How the answer is drawn from the model.
    pub sampling: Sampling,
    fields: Object,
}

/// The sampling fields, each `None` where the caller left the choice to the server.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
pub struct Sampling {
    /// The most output tokens, at least 1.
    pub max_tokens: Option<u64>,
    /// Newer name of `max_tokens` on the chat route.
    pub max_completion_tokens: Option<u64>,
    /// 0 (always the likeliest token) to 2.
    pub temperature: Option<f32>,
    /// Nucleus sampling: above 0, up to 1.
    pub top_p: Option<f32>,
    /// Only the k likeliest tokens; -1 is all of them.
    pub top_k: Option<i32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// The same seed and request give the same answer, as far as the model runner can.
    pub seed: Option<i64>,
    /// Text at which the answer ends.
    pub stop: Option<Stop>,
    /// Whether the text of the stop sequence belongs to the answer (vLLM's extension).
    pub include_stop_str_in_output: Option<bool>,
    /// How many answers, 1 to 128.
    pub n: Option<u64>,
}

/// One stop sequence, or up to four.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// A single sequence.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    /// The sequences.
    #[must_use]
    pub fn sequences(&self) -> &[String] {
        match self {
            Self::One(sequence) => std::slice::from_ref(sequence),
            Self::Many(sequences) => sequences,
        }
    }
}

/// Why a request can't be served as it is: the caller's mistake, HTTP 400.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// What is wrong and what would be right.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<&'static str>,
}

/// Fields without which an answer can be streamed; the last of them is vLLM's, whose streams don't carry it back.
const NOT_STREAMED: [&str; 5] = [
    "audio",
    "echo",
    "use_beam_search",
    "prompt_logprobs",
    "kv_transfer_params",
];

fn invalid(param: &'static str, message: impl Into<String>) -> InvalidRequest {
    InvalidRequest {
        message: message.into(),
        param: Some(param),
    }
}

impl Request {
    /// Reads and checks a request body.
    ///
    /// # Errors
    /// [`InvalidRequest`] names the first field that is wrong.
    pub fn parse(kind: Kind, body: &[u8]) -> Result<Self, InvalidRequest> {
        let fields = Object::parse(body).map_err(|error| InvalidRequest {
            message: match error {
                ObjectError::Json(_) => format!("the request body is {error}"),
                ObjectError::OtherType => "the request body must be a JSON object".to_owned(),
            },
            param: None,
        })?;
        let model = match fields.text("model") {
            Some(model) if !model.is_empty() => model.into_owned(),
            _ if fields.json("model").is_some() => {
                return Err(invalid("model", "'model' must be the name of a model"));
            }
            _ => return Err(invalid("model", "you must provide a 'model' parameter")),
        };
        let messages = match kind {
            Kind::Chat => check_messages(&fields)?,
            Kind::Completion => check_prompt(fields.json("prompt")).map(|()| 0)?,
            Kind::Embedding => {
                check_input(fields.value("input"))?;
                return Ok(Self::embedding(model, fields));
            }
        };
        let stream = match fields.json("stream") {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(_) => return Err(invalid("stream", "'stream' must be true or false")),
        };
        let options = match fields.value("stream_options") {
            Some(Value::Object(options)) => Some(options),
            None | Some(Value::Null) => None,
            Some(_) => return Err(invalid("stream_options", "'stream_options' must be an object")),
        };
        let option = |name: &str| options.and_then(|options| options.get(name)) == Some(&Value::Bool(true));
        Ok(Self {
            kind,
            model,
            messages,
            stream,
            include_usage: option("include_usage"),
            continuous_usage: option("continuous_usage_stats"),
            sampling: Sampling::read(&fields)?,
            fields,
        })
    }

    /// Checks the fields of a request.
    ///
    /// # Errors
    /// [`InvalidRequest`] names the first field that is wrong.
    pub fn from_fields(kind: Kind, fields: Map<String, Value>) -> Result<Self, InvalidRequest> {
        Self::parse(kind, Value::from(fields).to_string().as_bytes())
    }

    /// Whatever a completion has besides, here it is none of our business.
    fn embedding(model: String, fields: Object) -> Self {
        Self {
            kind: Kind::Embedding,
            model,
            messages: 0,
            stream: false,
            include_usage: false,
            continuous_usage: false,
            sampling: Sampling::default(),
            fields,
        }
    }

    /// OpenAI's bound on `stop`, which v1 does not have: to be asked where a caller speaks this dialect.
    ///
    /// # Errors
    /// [`InvalidRequest`] if there are more than four sequences.
    pub fn check_stop_count(&self) -> Result<(), InvalidRequest> {
        match self
            .sampling
            .stop
            .as_ref()
            .map_or(0, |stop| stop.sequences().len())
        {
            0..=4 => Ok(()),
            count => Err(invalid(
                "stop",
                format!("'stop' has {count} sequences; it may have up to 4"),
            )),
        }
    }

    /// The field of that name, as the caller sent it; `null` counts as absent.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.value(name).filter(|value| !value.is_null())
    }

    /// The names of all fields, in the order in which the caller sent them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.names()
    }

    /// How much is said in the field of that name.
    #[must_use]
    pub fn texts(&self, name: &str) -> Texts {
        self.fields.texts(name)
    }

    /// The most output tokens that the caller asked for. Absent on the completions route it is OpenAI's default, 16.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<u64> {
        let asked = self.sampling.max_completion_tokens.or(self.sampling.max_tokens);
        match self.kind {
            Kind::Chat => asked,
            Kind::Completion => asked.or(Some(16)),
            Kind::Embedding => Some(0),
        }
    }

    /// How many answers are generated; each may use up to [`Self::max_output_tokens`].
    #[must_use]
    pub fn answers(&self) -> u64 {
        if self.kind == Kind::Embedding {
            return 0;
        }
        let best_of = self.fields.value("best_of").and_then(Value::as_u64).unwrap_or(1);
        let prompts = match self.fields.json("prompt") {
            Some(json) if json.starts_with('[') => match self.fields.value("prompt") {
                // A list of numbers is one prompt of token ids; of anything else, a list of prompts.
                Some(Value::Array(prompts)) if !prompts.iter().all(Value::is_number) => prompts.len() as u64,
                _ => 1,
            },
            _ => 1,
        };
        self.sampling.n.unwrap_or(1).max(best_of).saturating_mul(prompts)
    }

    /// Whether the answer can be asked for as a stream and put together without a loss: some of what may be asked for is not
    /// streamed, or not in the same words.
    #[must_use]
    pub fn can_be_streamed(&self) -> bool {
        let is_off = |name: &str| matches!(self.fields.json(name), None | Some("null" | "false"));
        let best_of = self.field("best_of").map_or(Some(1.0), Value::as_f64);
        let modalities = self.field("modalities").and_then(Value::as_array);
        let has_audio = modalities.is_some_and(|all| all.iter().any(|one| one == "audio"));
        self.kind != Kind::Embedding
            && best_of.is_some_and(|best_of| best_of <= 1.0)
            && !has_audio
            && NOT_STREAMED.iter().all(|name| is_off(name))
    }

    /// The body to send to a deployment: the caller's fields under the deployment's own model name, with the output
    /// bounded, and with the usage in the stream whether or not the caller wants to see it.
    #[must_use]
    pub fn upstream_body(&self, upstream: &Upstream<'_>) -> String {
        let bound = match self.kind {
            Kind::Chat if self.fields.json("max_completion_tokens").is_some() => {
                Some("max_completion_tokens")
            }
            Kind::Chat | Kind::Completion => Some("max_tokens"),
            Kind::Embedding => None,
        };
        let model = object::string(upstream.model);
        let mut changes = vec![("model", Some(model.as_str()))];
        let most = upstream.max_output_tokens.map(|tokens| tokens.to_string());
        if let (Some(bound), Some(most)) = (bound, &most) {
            changes.push((bound, Some(most)));
        }
        let options;
        if upstream.stream {
            options = self.stream_options(upstream.continuous_usage);
            changes.extend([("stream", Some("true")), ("stream_options", Some(&*options))]);
        }
        self.fields.with(&changes)
    }

    /// The caller's options and ours.
    fn stream_options(&self, continuous_usage: bool) -> Cow<'static, str> {
        let options = self.field("stream_options").and_then(Value::as_object);
        if options.is_none() && !continuous_usage {
            return Cow::Borrowed(r#"{"include_usage":true}"#);
        }
        let mut options = options.cloned().unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        if continuous_usage {
            options.insert("continuous_usage_stats".to_owned(), true.into());
        }
        Value::from(options).to_string().into()
    }
}

/// What a request becomes for one deployment.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// The deployment's own name of the model.
    pub model: &'a str,
    /// The bound to send, where one was settled on.
    pub max_output_tokens: Option<u64>,
    /// Whether the deployment shall stream.
    pub stream: bool,
    /// Whether it can put the usage into every chunk.
    pub continuous_usage: bool,
}

impl Sampling {
    fn read(fields: &Object) -> Result<Self, InvalidRequest> {
        let sampling = Self {
            max_tokens: field(fields, "max_tokens", "a whole number of at least 1")?,
            max_completion_tokens: field(fields, "max_completion_tokens", "a whole number of at least 1")?,
            temperature: field(fields, "temperature", "a number from 0 to 2")?,
            top_p: field(fields, "top_p", "a number above 0 and up to 1")?,
            top_k: field(
                fields,
                "top_k",
                "a whole number of at least 1, or -1 for all tokens",
            )?,
            presence_penalty: field(fields, "presence_penalty", "a number from -2 to 2")?,
            frequency_penalty: field(fields, "frequency_penalty", "a number from -2 to 2")?,
            seed: field(fields, "seed", "a whole number")?,
            stop: field(fields, "stop", "a text or a list of texts")?,
            include_stop_str_in_output: field(fields, "include_stop_str_in_output", "true or false")?,
            n: field(fields, "n", "a whole number from 1 to 128")?,
        };
        sampling.check()?;
        Ok(sampling)
    }

    fn check(&self) -> Result<(), InvalidRequest> {
        let within = |name: &'static str, value: Option<f32>, low: f32, high: f32| match value {
            Some(value) if !(low..=high).contains(&value) => Err(invalid(
                name,
                format!("'{name}' is {value}; it must be from {low} to {high}"),
            )),
            _ => Ok(()),
        };
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if let Some(top_p) = self.top_p
            && !(top_p > 0.0 && top_p <= 1.0)
        {
            return Err(invalid(
                "top_p",
                format!("'top_p' is {top_p}; it must be above 0 and up to 1"),
            ));
        }
        if let Some(top_k) = self.top_k
            && (top_k == 0 || top_k < -1)
        {
            return Err(invalid(
                "top_k",
                format!("'top_k' is {top_k}; it must be at least 1, or -1 for all"),
            ));
        }
        for (name, tokens) in [
            ("max_tokens", self.max_tokens),
            ("max_completion_tokens", self.max_completion_tokens),
        ] {
            if tokens == Some(0) {
                return Err(invalid(name, format!("'{name}' is 0; it must be at least 1")));
            }
        }
        if let Some(n) = self.n
            && !(1..=128).contains(&n)
        {
            return Err(invalid("n", format!("'n' is {n}; it must be from 1 to 128")));
        }
        Ok(())
    }
}

/// Reads an optional field; `null` counts as absent.
fn field<T: for<'de> Deserialize<'de>>(
    fields: &Object,
    name: &'static str,
    wanted: &str,
) -> Result<Option<T>, InvalidRequest> {
    match fields.json(name) {
        None | Some("null") => Ok(None),
        Some(json) => serde_json::from_str(json)
            .map(Some)
            .map_err(|_| invalid(name, format!("'{name}' is {json}; it must be {wanted}"))),
    }
}

/// A message of a chat, of which only that it has a role matters here.
struct Message;

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

/// Reads names and roles without an escape, which need no memory of their own: nearly all.
impl<'de> Visitor<'de> for Message {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message with a role")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut role = None;
        while let Some(name) = members.next_key::<&str>()? {
            if name == "role" {
                role = Some(members.next_value::<&str>()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        role.map(|_| Self).ok_or_else(|| A::Error::missing_field("role"))
    }
}

/// How many messages there are.
fn check_messages(fields: &Object) -> Result<usize, InvalidRequest> {
    let json = fields.json("messages").unwrap_or("null");
    if let Ok(messages) = serde_json::from_str::<Vec<Message>>(json)
        && !messages.is_empty()
    {
        return Ok(messages.len());
    }
    // Only here it is looked for what is wrong.
    let Some(Value::Array(messages)) = fields.value("messages") else {
        return Err(invalid("messages", "'messages' must be a list of messages"));
    };
    if messages.is_empty() {
        return Err(invalid("messages", "'messages' must hold at least one message"));
    }
    for (index, message) in messages.iter().enumerate() {
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(invalid(
                "messages",
                format!("'messages[{index}].role' must be a text"),
            ));
        }
    }
    Ok(messages.len())
}

fn check_prompt(prompt: Option<&str>) -> Result<(), InvalidRequest> {
    match prompt.map(|json| json.as_bytes()[0]) {
        Some(b'"' | b'[') => Ok(()),
        Some(_) => Err(invalid("prompt", "'prompt' must be a text")),
        None => Err(invalid("prompt", "you must provide a 'prompt' parameter")),
    }
}

/// A text, a list of texts, or one or several texts as token ids; what else a list may hold, the deployment knows.
fn check_input(input: Option<&Value>) -> Result<(), InvalidRequest> {
    match input {
        Some(Value::String(text)) if text.is_empty() => Err(invalid("input", "'input' must not be empty")),
        Some(Value::Array(texts)) if texts.is_empty() => Err(invalid("input", "'input' must not be empty")),
        Some(Value::String(_) | Value::Array(_)) => Ok(()),
        Some(_) => Err(invalid("input", "'input' must be a text or a list")),
        None => Err(invalid("input", "you must provide an 'input' parameter")),
    }
}
