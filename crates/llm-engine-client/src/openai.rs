//! OpenAI's dialect: chat completions, completions, and the models.
//!
//! Requests are anything that is written as a JSON object with a `model`: a [`ChatRequest`], a [`CompletionRequest`], a
//! [`serde_json::Value`] or a type of yours. Answers keep what they do not know by name in `extra`.

use llm_engine_wire::openai::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{object, read, written};
use crate::{Call, Client, Error, TypedStream};

pub use llm_engine_wire::openai::{Model, ModelList, Usage};

/// A request for the next message of a conversation.
///
/// ```
/// use llm_engine_client::openai::{ChatRequest, Message};
/// use serde_json::json;
///
/// let mut request = ChatRequest::new("m", [Message::user("Hello")]);
/// request.extra.insert("temperature".to_owned(), 0.2.into());
/// assert_eq!(
///     serde_json::to_value(&request)?,
///     json!({ "model": "m", "messages": [{ "role": "user", "content": "Hello" }], "temperature": 0.2 })
/// );
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// The conversation, the oldest message first.
    pub messages: Vec<Message>,
    /// The most output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Every other field, as it is sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A request to go on from a text.
///
/// ```
/// use llm_engine_client::openai::CompletionRequest;
/// use serde_json::json;
///
/// let request = CompletionRequest::new("m", "Once upon a time");
/// assert_eq!(serde_json::to_value(&request)?, json!({ "model": "m", "prompt": "Once upon a time" }));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The model.
    pub model: String,
    /// The text.
    pub prompt: String,
    /// The most output tokens; 16 if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Every other field, as it is sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A message of a conversation, or what a chunk adds to one.
///
/// ```
/// use llm_engine_client::openai::Message;
/// use serde_json::json;
///
/// let mut message = Message::new("user", "");
/// message.content = json!([{ "type": "text", "text": "What is this?" }, { "type": "image_url", "image_url": { "url": "…" } }]);
/// assert_eq!(message.text(), "", "it is no plain text");
/// assert_eq!(Message::user("Hello").text(), "Hello");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`. Not in every chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What is said: a text, a list of parts, or null.
    #[serde(default)]
    pub content: Value,
    /// Every other field, such as `tool_calls`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A whole answer of either route, or a chunk of one.
///
/// ```
/// use llm_engine_client::openai::Completion;
///
/// let answer: Completion = serde_json::from_str(
///     r#"{"id": "1", "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
///         "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}, "system_fingerprint": "f"}"#,
/// )?;
/// assert_eq!(answer.text(), "Hi");
/// assert_eq!(answer.usage.unwrap().completion_tokens, 1);
/// assert_eq!(answer.extra["system_fingerprint"], "f");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Identifies the answer.
    #[serde(default)]
    pub id: String,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// The answers: one, unless more were asked for; none in a chunk that only carries the usage.
    #[serde(default)]
    pub choices: Vec<Choice>,
    /// What it took. In a stream only if it was asked for, in the last chunk.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One answer, or what a chunk adds to it. Which of the three members has the text depends on the route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which answer.
    #[serde(default)]
    pub index: u32,
    /// Of a whole chat completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// Of a chunk of a chat completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Message>,
    /// Of a completion, whole or a chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why the answer ended: `stop`, `length`, …
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request with nothing but what every one must have.
    #[must_use]
    pub fn new(model: impl Into<String>, messages: impl Into<Vec<Message>>) -> Self {
        Self {
            model: model.into(),
            messages: messages.into(),
            max_tokens: None,
            extra: Map::new(),
        }
    }
}

impl CompletionRequest {
    /// A request with nothing but what every one must have.
    #[must_use]
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            prompt: prompt.into(),
            max_tokens: None,
            extra: Map::new(),
        }
    }
}

impl Message {
    /// What the system, a user or the assistant says.
    #[must_use]
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            role: Some(role.into()),
            content: Value::String(text.into()),
            extra: Map::new(),
        }
    }

    /// What a user says.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// The text; empty if there is none, or something else.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content.as_str().unwrap_or_default()
    }
}

impl Completion {
    /// The text of the first answer, on either route, whole or in a chunk.
    #[must_use]
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", Choice::text)
    }
}

impl Choice {
    /// The text, on either route, whole or in a chunk.
    #[must_use]
    pub fn text(&self) -> &str {
        let message = self.message.as_ref().or(self.delta.as_ref());
        message
            .map(Message::text)
            .or(self.text.as_deref())
            .unwrap_or_default()
    }
}

impl Client {
    /// Asks for the next message of a conversation.
    ///
    /// ```no_run
    /// use llm_engine_client::Client;
    /// use llm_engine_client::openai::{ChatRequest, Message};
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let request = ChatRequest::new("smollm2-135m", [Message::user("Why is the sky blue?")]);
    /// println!("{}", client.chat(&request).await?.text());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    pub async fn chat(&self, request: &impl Serialize) -> Result<Completion, Error> {
        read(self.call(call(Kind::Chat, request, false)?).await?)
    }

    /// The same, piece by piece; `stream` is set in the request.
    ///
    /// ```no_run
    /// use llm_engine_client::Client;
    /// use llm_engine_client::openai::{ChatRequest, Message};
    /// use serde_json::json;
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let mut request = ChatRequest::new("smollm2-135m", [Message::user("Why is the sky blue?")]);
    /// request.extra.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    /// let mut chunks = client.chat_stream(&request).await?;
    /// while let Some(chunk) = chunks.next().await {
    ///     let chunk = chunk?;
    ///     print!("{}", chunk.text());
    ///     if let Some(usage) = chunk.usage {
    ///         println!(" ({} tokens)", usage.total_tokens);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub async fn chat_stream(&self, request: &impl Serialize) -> Result<TypedStream<Completion>, Error> {
        let call = call(Kind::Chat, request, true)?;
        Ok(TypedStream::new(self.stream(call).await?))
    }

    /// Asks for what follows a text.
    ///
    /// ```no_run
    /// use llm_engine_client::Client;
    /// use llm_engine_client::openai::CompletionRequest;
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let mut request = CompletionRequest::new("smollm2-135m", "The sky is");
    /// request.max_tokens = Some(100);
    /// println!("{}", client.completions(&request).await?.text());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    pub async fn completions(&self, request: &impl Serialize) -> Result<Completion, Error> {
        read(self.call(call(Kind::Completion, request, false)?).await?)
    }

    /// The same, piece by piece; `stream` is set in the request.
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub async fn completions_stream(
        &self,
        request: &impl Serialize,
    ) -> Result<TypedStream<Completion>, Error> {
        let call = call(Kind::Completion, request, true)?;
        Ok(TypedStream::new(self.stream(call).await?))
    }

    /// The names of the models.
    ///
    /// ```no_run
    /// # async fn example(client: llm_engine_client::Client) -> Result<(), llm_engine_client::Error> {
    /// for model in client.models().await?.data {
    ///     println!("{}", model.id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with the list.
    pub async fn models(&self) -> Result<ModelList, Error> {
        read(self.call(models_call()).await?)
    }
}

pub(crate) fn models_call() -> Call {
    Call::get("/v1/models")
}

pub(crate) fn call(kind: Kind, request: &impl Serialize, is_streamed: bool) -> Result<Call, Error> {
    let mut fields = object(request)?;
    let Some(model) = fields.get("model").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Error::unsent("the request must name its model"));
    };
    if is_streamed {
        fields.insert("stream".to_owned(), true.into());
    } else {
        fields.remove("stream");
    }
    Ok(Call::post(format!("/v1{}", kind.path()), written(&fields)?).model(model))
}
