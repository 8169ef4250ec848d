use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Kind;
use crate::object::place;

/// Tokens that one request has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, chat template included.
    pub prompt_tokens: u64,
    /// Tokens generated.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Their sum.
    #[serde(default)]
    pub total_tokens: u64,
}

impl Usage {
    /// The usage with its sum.
    #[must_use]
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
        }
    }
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The same in every chunk of one answer.
    #[serde(default)]
    pub id: String,
    /// `chat.completion.chunk` or `text_completion`.
    #[serde(default)]
    pub object: String,
    /// Unix time, in seconds.
    #[serde(default)]
    pub created: u64,
    /// The model that answers.
    #[serde(default)]
    pub model: String,
    /// What was added to each answer; empty in a chunk that only carries the usage.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, or in each one where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A chunk as most of them are.
#[derive(Deserialize)]
struct PlainChunk<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    created: u64,
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    #[serde(default, deserialize_with = "present")]
    usage: bool,
    #[serde(default, deserialize_with = "present")]
    error: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Chunk {
    /// Reads a chunk that names its model and says nothing of a usage or an error. With it comes its JSON as it was, but for
    /// this name of the model, which is JSON too. `None` for every other chunk, and for what is none.
    #[must_use]
    pub fn read_plain(json: &str, model: &str) -> Option<(Self, String)> {
        // A list of the fields' values would be read as well.
        let plain: PlainChunk<'_> = serde_json::from_str(json)
            .ok()
            .filter(|_| json.starts_with('{'))?;
        if plain.usage || plain.error {
            return None;
        }
        let old = plain.model.get();
        let place = place(old, json);
        let renamed = [&json[..place.start], model, &json[place.end..]].concat();
        let chunk = Self {
            id: plain.id,
            object: plain.object,
            created: plain.created,
            model: serde_json::from_str(old).ok()?,
            choices: plain.choices,
            usage: None,
        };
        Some((chunk, renamed))
    }
}

/// What a chunk adds to one answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChunkChoice {
    /// Which answer.
    #[serde(default)]
    pub index: u32,
    /// On the chat route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// On the completions route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Log-probabilities in the route's own form.
    #[serde(default)]
    pub logprobs: Option<Value>,
    /// Why the answer ended: `stop`, `length`, …
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// What a chunk adds to a chat message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// In the first chunk of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl ChunkChoice {
    /// The text that this chunk adds, on either route.
    #[must_use]
    pub fn added_text(&self) -> &str {
        let content = self.delta.as_ref().and_then(|delta| delta.content.as_deref());
        content.or(self.text.as_deref()).unwrap_or_default()
    }
}

/// A whole answer, for a caller that did not ask for a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Identifies the answer.
    pub id: String,
    /// `chat.completion` or `text_completion`.
    pub object: String,
    /// Unix time, in seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// What it took.
    #[serde(default)]
    pub usage: Usage,
}

/// One whole answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which answer.
    pub index: u32,
    /// On the chat route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// On the completions route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Log-probabilities in the route's own form.
    #[serde(default)]
    pub logprobs: Option<Value>,
    /// Why the answer ended.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// A chat message with text for content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Response {
    /// The most answers to one request that [`Self::append`] puts together.
    pub const MOST_CHOICES: usize = 128;

    /// One empty answer, which [`Self::append`] fills from the chunks of a stream, and puts others beside it.
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        let object = match kind {
            Kind::Chat => "chat.completion",
            Kind::Completion => "text_completion",
            Kind::Embedding => "list",
        };
        Self {
            id: String::new(),
            object: object.to_owned(),
            created: 0,
            model: String::new(),
            choices: vec![Choice::empty(kind, 0)],
            usage: Usage::default(),
        }
    }

    /// Adds what a chunk says.
    pub fn append(&mut self, chunk: Chunk) {
        if self.id.is_empty() {
            self.id = chunk.id;
            self.created = chunk.created;
            self.model = chunk.model;
        }
        if let Some(usage) = chunk.usage {
            self.usage = usage;
        }
        for added in chunk.choices {
            let Some(choice) = self.choice(added.index) else {
                continue;
            };
            if let Some(message) = &mut choice.message {
                message.content.push_str(added.added_text());
            } else if let Some(text) = &mut choice.text {
                text.push_str(added.added_text());
            }
            if let Some(logprobs) = added.logprobs {
                append_logprobs(&mut choice.logprobs, logprobs);
            }
            if added.finish_reason.is_some() {
                choice.finish_reason = added.finish_reason;
            }
        }
    }
}

impl Response {
    /// The answer of that number, empty if nothing was said of it yet; `None` if there can't be so many.
    fn choice(&mut self, number: u32) -> Option<&mut Choice> {
        let place = usize::try_from(number)
            .ok()
            .filter(|&place| place < Self::MOST_CHOICES)?;
        let kind = if self
            .choices
            .first()
            .is_some_and(|choice| choice.message.is_none())
        {
            Kind::Completion
        } else {
            Kind::Chat
        };
        while self.choices.len() <= place {
            let next = u32::try_from(self.choices.len()).ok()?;
            self.choices.push(Choice::empty(kind, next));
        }
        self.choices.get_mut(place)
    }
}

impl Choice {
    fn empty(kind: Kind, index: u32) -> Self {
        let (message, text) = match kind {
            Kind::Chat => (Some(Message::assistant()), None),
            Kind::Completion => (None, Some(String::new())),
            Kind::Embedding => (None, None),
        };
        Self {
            index,
            message,
            text,
            ..Self::default()
        }
    }
}

/// Both routes give log-probabilities as lists that grow with the answer: the chat route one of objects, the
/// completions route several side by side.
fn append_logprobs(all: &mut Option<Value>, added: Value) {
    match (all, added) {
        (Some(Value::Object(all)), Value::Object(added)) => {
            for (name, added) in added.into_iter().filter(|(_, added)| !added.is_null()) {
                match (all.get_mut(&name), added) {
                    (Some(Value::Array(all)), Value::Array(added)) => all.extend(added),
                    (_, added) => {
                        all.insert(name, added);
                    }
                }
            }
        }
        (all, added) => *all = Some(added),
    }
}

impl Message {
    fn assistant() -> Self {
        Self {
            role: "assistant".to_owned(),
            content: String::new(),
        }
    }
}

/// What `GET /models` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

/// One entry of [`ModelList`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// The public name.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Unix time, in seconds.
    pub created: u64,
    /// Who offers it.
    pub owned_by: String,
}
