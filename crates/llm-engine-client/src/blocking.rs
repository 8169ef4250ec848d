//! The same client for code without async.
//!
//! Calls run on a small runtime of two threads that all blocking clients of a process share; the calling thread waits. From
//! code that runs inside of an async runtime they return an error at once, because waiting there would stop its other
//! work: use [`crate::Client`] there.
//!
//! ```no_run
//! use llm_engine_client::blocking::Client;
//! use llm_engine_client::v1::CompletionRequest;
//!
//! let client = Client::new("http://127.0.0.1:5000", "root")?;
//! let request = CompletionRequest::new("llama-7b", "Why is the sky blue?", 100, 0.2);
//! println!("{}", client.complete(&request)?.output.text);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::openai::{Completion, ModelList};
use crate::v1::{CompletionRequest, Endpoint, EndpointList, Frame, SyncResponse};
use crate::{Answer, BuildError, Call, Error, EventStream, TypedStream};

/// A blocking client of one server with one API key. Clones are cheap, and share everything.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_client::blocking::Client;
///
/// // All settings are those of the other client.
/// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000").timeout(Duration::from_secs(60)).build()?;
/// let client = Client::from(client);
/// # Ok::<_, llm_engine_client::BuildError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client(crate::Client);

/// An answer that comes in pieces: an iterator over the data of each event. As [`crate::EventStream`].
///
/// ```no_run
/// use llm_engine_client::Call;
/// use llm_engine_client::blocking::Client;
///
/// let client = Client::new("http://127.0.0.1:5000", "root")?;
/// let body = r#"{"model": "m", "prompt": "Hello", "stream": true}"#;
/// for event in client.stream(Call::post("/v1/completions", body).model("m"))? {
///     println!("{}", String::from_utf8_lossy(&event?));
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events(EventStream);

/// An answer that comes in pieces: an iterator over messages. As [`crate::TypedStream`].
///
/// ```no_run
/// use llm_engine_client::blocking::Client;
/// use llm_engine_client::v1::CompletionRequest;
///
/// let client = Client::new("http://127.0.0.1:5000", "root")?;
/// let request = CompletionRequest::new("llama-7b", "Why is the sky blue?", 100, 0.2);
/// for frame in client.complete_stream(&request)? {
///     if let Some(output) = frame?.output {
///         print!("{}", output.text);
///     }
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Messages<T>(TypedStream<T>);

impl Client {
    /// A client with the defaults.
    ///
    /// # Errors
    /// [`BuildError`] if the URL or the key can't be used.
    pub fn new(base_url: impl Into<String>, api_key: impl Into<String>) -> Result<Self, BuildError> {
        Ok(Self(crate::Client::new(base_url, api_key)?))
    }

    /// As [`crate::Client::call`].
    ///
    /// ```no_run
    /// use llm_engine_client::Call;
    /// use llm_engine_client::blocking::Client;
    ///
    /// let client = Client::new("http://127.0.0.1:5000", "root")?;
    /// let answer = client.call(Call::get("/v1/limits"))?;
    /// println!("{}", String::from_utf8_lossy(&answer.body));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    pub fn call(&self, call: Call) -> Result<Answer, Error> {
        wait(self.0.call(call))?
    }

    /// As [`crate::Client::stream`].
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub fn stream(&self, call: Call) -> Result<Events, Error> {
        wait(self.0.stream(call))?.map(Events)
    }

    /// As [`crate::Client::complete`].
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with a completion.
    pub fn complete(&self, request: &CompletionRequest) -> Result<SyncResponse, Error> {
        wait(self.0.complete(request))?
    }

    /// As [`crate::Client::complete_stream`].
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub fn complete_stream(&self, request: &CompletionRequest) -> Result<Messages<Frame>, Error> {
        wait(self.0.complete_stream(request))?.map(Messages)
    }

    /// As [`crate::Client::model_endpoints`].
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with the list.
    pub fn model_endpoints(&self) -> Result<EndpointList, Error> {
        wait(self.0.model_endpoints())?
    }

    /// As [`crate::Client::model_endpoint`].
    ///
    /// # Errors
    /// [`Error`] of the kind [`NotFound`](crate::ErrorKind::NotFound) if there is none of that name.
    pub fn model_endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        wait(self.0.model_endpoint(name))?
    }

    /// As [`crate::Client::chat`].
    ///
    /// ```no_run
    /// use llm_engine_client::blocking::Client;
    /// use llm_engine_client::openai::{ChatRequest, Message};
    ///
    /// let client = Client::new("http://127.0.0.1:5000", "root")?;
    /// let request = ChatRequest::new("smollm2-135m", [Message::user("Hello")]);
    /// println!("{}", client.chat(&request)?.text());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    pub fn chat(&self, request: &impl Serialize) -> Result<Completion, Error> {
        wait(self.0.chat(request))?
    }

    /// As [`crate::Client::chat_stream`].
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub fn chat_stream(&self, request: &impl Serialize) -> Result<Messages<Completion>, Error> {
        wait(self.0.chat_stream(request))?.map(Messages)
    }

    /// As [`crate::Client::completions`].
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    pub fn completions(&self, request: &impl Serialize) -> Result<Completion, Error> {
        wait(self.0.completions(request))?
    }

    /// As [`crate::Client::completions_stream`].
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub fn completions_stream(&self, request: &impl Serialize) -> Result<Messages<Completion>, Error> {
        wait(self.0.completions_stream(request))?.map(Messages)
    }

    /// As [`crate::Client::models`].
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with the list.
    pub fn models(&self) -> Result<ModelList, Error> {
        wait(self.0.models())?
    }

    /// As [`crate::Client::cancelled`]: returns when the server has been told of every stream that was dropped.
    ///
    /// # Errors
    /// [`Error`], inside of an async runtime.
    pub fn cancelled(&self) -> Result<(), Error> {
        wait(self.0.cancelled())
    }
}

/// What was set up by [`Builder`](crate::Builder).
impl From<crate::Client> for Client {
    fn from(client: crate::Client) -> Self {
        Self(client)
    }
}

impl Events {
    /// What the server calls the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id()
    }

    /// How many attempts were made, at least 1.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts()
    }
}

impl Iterator for Events {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next()).unwrap_or_else(|error| Some(Err(error)))
    }
}

impl<T: DeserializeOwned> Messages<T> {
    /// The events below, for the request id and the number of attempts.
    #[must_use]
    pub fn events(&self) -> &EventStream {
        self.0.events()
    }
}

impl<T: DeserializeOwned> Iterator for Messages<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next()).unwrap_or_else(|error| Some(Err(error)))
    }
}

/// Blocks this thread until it is done.
fn wait<F: Future>(work: F) -> Result<F::Output, Error> {
    if Handle::try_current().is_ok() {
        return Err(Error::unsent(
            "the blocking client can't be used inside of an async runtime: use llm_engine_client::Client there",
        ));
    }
    Ok(runtime()?.block_on(work))
}

fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        let builder = builder
            .worker_threads(2)
            .thread_name("llm-engine-client")
            .enable_all();
        builder.build().map_err(|error| error.to_string())
    });
    let failed =
        |error: &String| Error::unsent(format!("no runtime can be made for the blocking client: {error}"));
    runtime.as_ref().map_err(failed)
}
