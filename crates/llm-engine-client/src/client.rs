use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use llm_engine_retry::Retry;
use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;

use crate::attempt::Whole;
use crate::event_stream::Opened;
use crate::lines::LineKey;
use crate::run::Run;
use crate::transport::Base;
use crate::{Answer, BuildError, Builder, Call, Error, EventStream, Lines};

/// A client of one server with one API key. Clones are cheap, and share everything.
///
/// ```no_run
/// use llm_engine_client::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:5000", "root")?;
/// for model in client.models().await?.data {
///     println!("{}", model.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones of a client have in common.
pub(crate) struct Shared {
    pub(crate) base: Base,
    /// SHA-256 of the API key: calls with the same one stand in the same line.
    pub(crate) api_key_digest: [u8; 32],
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) transport: reqwest::Client,
    pub(crate) settings: Settings,
    pub(crate) lines: Lines,
    /// Cancels that are being sent.
    pub(crate) cancels: TaskTracker,
}

/// What a call does unless it says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) keep: Duration,
    pub(crate) retry: Retry,
}

impl Client {
    /// A client with the defaults: see [`Builder`].
    ///
    /// # Errors
    /// [`BuildError`] if the URL or the key can't be used.
    ///
    /// ```
    /// use llm_engine_client::Client;
    ///
    /// assert!(Client::new("http://127.0.0.1:5000", "root").is_ok());
    /// assert!(Client::new("127.0.0.1:5000", "root").is_err());
    /// ```
    pub fn new(base_url: impl Into<String>, api_key: impl Into<String>) -> Result<Self, BuildError> {
        Self::builder(base_url).api_key(api_key).build()
    }

    /// Where to set more than URL and key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_client::Client;
    ///
    /// let client = Client::builder("http://127.0.0.1:5000").timeout(Duration::from_secs(60)).build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn builder(base_url: impl Into<String>) -> Builder {
        Builder::new(base_url)
    }

    pub(crate) fn from_parts(
        base: Base,
        api_key: &str,
        authorization: Option<HeaderValue>,
        transport: reqwest::Client,
        settings: Settings,
        lines: Lines,
    ) -> Self {
        let cancels = TaskTracker::new();
        // From here on `wait` returns whenever there are none.
        cancels.close();
        Self {
            shared: Arc::new(Shared {
                base,
                api_key_digest: Sha256::digest(api_key).into(),
                authorization,
                transport,
                settings,
                lines,
                cancels,
            }),
        }
    }

    /// The URL of the server, without a slash at the end.
    ///
    /// ```
    /// use llm_engine_client::Client;
    ///
    /// assert_eq!(Client::new("http://127.0.0.1:5000/", "root")?.base_url(), "http://127.0.0.1:5000");
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.shared.base.as_str()
    }

    /// Makes any call for a whole answer. Dropped before its end, it is cancelled.
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with success.
    ///
    /// ```no_run
    /// use llm_engine_client::{Call, Client};
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let answer = client.call(Call::get("/v1/limits")).await?;
    /// println!("{}", String::from_utf8_lossy(&answer.body));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call(&self, call: Call) -> Result<Answer, Error> {
        let run = Run::new(self.shared.clone(), call)?;
        let (answer, run) = run.until_read::<Whole>().await?;
        Ok(Answer {
            failed_attempts: run.finish(),
            ..answer
        })
    }

    /// Makes any call for an answer in pieces; its body has to ask for them. Returns when the first piece with text is there:
    /// up to then the call is tried again like any other. Dropped before its end, the stream is cancelled.
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far.
    ///
    /// ```no_run
    /// use llm_engine_client::{Call, Client};
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let body = r#"{"model": "m", "prompt": "Hello", "stream": true}"#;
    /// let mut events = client.stream(Call::post("/v1/completions", body).model("m")).await?;
    /// while let Some(event) = events.next().await {
    ///     println!("{}", String::from_utf8_lossy(&event?));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stream(&self, call: Call) -> Result<EventStream, Error> {
        let run = Run::new(self.shared.clone(), call)?;
        let (opened, run) = run.until_read::<Opened>().await?;
        Ok(EventStream::new(opened, run))
    }

    /// For how long nobody leaves the line of this model: what is left of the time that the server last told a call to wait. For
    /// programs that decide by themselves when to call again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_client::Client;
    ///
    /// let client = Client::new("http://127.0.0.1:5000", "root")?;
    /// assert_eq!(client.held_for("llama-7b"), Duration::ZERO);
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn held_for(&self, model: &str) -> Duration {
        let line = self.shared.lines.line(LineKey {
            base_url: self.base_url().to_owned(),
            api_key_digest: self.shared.api_key_digest,
            model: model.to_owned(),
        });
        line.held_for()
    }

    /// Returns when the server has been told of every call that was dropped, after 2 s at the latest. To be awaited before the
    /// runtime ends, where that matters.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use llm_engine_client::{Client, v1::CompletionRequest};
    ///
    /// # async fn example(client: Client, request: CompletionRequest) {
    /// if tokio::time::timeout(Duration::from_secs(5), client.complete(&request)).await.is_err() {
    ///     // The call was dropped; nobody is to pay for what nobody hears.
    ///     client.cancelled().await;
    /// }
    /// # }
    /// ```
    pub async fn cancelled(&self) {
        self.shared.cancels.wait().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.base_url())
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
