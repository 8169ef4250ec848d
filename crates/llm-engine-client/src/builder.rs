use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use llm_engine_retry::Retry;

use crate::client::Settings;
use crate::transport::{self, Base};
use crate::{Client, Lines};

/// How a [`Client`] is made.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_client::{Backoff, Client, Retry, Stop};
///
/// let client = Client::builder("https://llm.example.com")
///     .api_key("my-key")
///     .timeout(Duration::from_secs(60))
///     .retry(Retry::new(Backoff::published(), Stop::after_attempts(10)))
///     .build()?;
/// # Ok::<_, llm_engine_client::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    base_url: String,
    api_key: Option<String>,
    user_agent: String,
    root_certificates: Vec<Vec<u8>>,
    settings: Settings,
    /// `None`: those of the process.
    lines: Option<Lines>,
}

/// Why there is no client: the caller's mistake, in every case.
///
/// ```
/// use llm_engine_client::{BuildError, Client};
///
/// let mistake = Client::builder("127.0.0.1:5000").build().unwrap_err();
/// assert!(matches!(mistake, BuildError::Url { .. }));
/// let mistake = Client::new("http://127.0.0.1:5000", "two\nlines").unwrap_err();
/// assert!(matches!(mistake, BuildError::ApiKey));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base URL can't be used.
    #[error("{url:?} is no base URL: {reason}")]
    Url {
        /// As it was given; without what could be a password.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The API key has characters that can't be sent.
    #[error("the API key has characters that no HTTP header may have")]
    ApiKey,
    /// The user agent has characters that can't be sent.
    #[error("the user agent {0:?} has characters that no HTTP header may have")]
    UserAgent(String),
    /// What was given as certificates is none.
    #[error("the root certificates can't be used: {0}")]
    RootCertificates(String),
    /// The HTTP client can't be made, for instance because a proxy variable is wrong.
    #[error("the HTTP client can't be made: {0}")]
    Transport(String),
}

/// As the published client.
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(30);

impl Builder {
    /// A client of the server at this URL, such as `http://127.0.0.1:5000`: what comes before `/v1`.
    ///
    /// A path before that, as behind a proxy, is kept; a query, a fragment, a user or a password is not allowed.
    ///
    /// ```
    /// use llm_engine_client::Builder;
    ///
    /// let client = Builder::new("https://example.com/llm/").build()?;
    /// assert_eq!(client.base_url(), "https://example.com/llm");
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: None,
            user_agent: concat!("llm-engine-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            root_certificates: Vec::new(),
            settings: Settings {
                timeout: TIMEOUT,
                attempt_timeout: None,
                connect_timeout: CONNECT_TIMEOUT,
                keep: KEEP,
                retry: Retry::default(),
            },
            lines: None,
        }
    }

    /// The key that calls are made with, as a Bearer token. Without, none is sent.
    ///
    /// Only its SHA-256 is kept besides, to tell whose calls stand in one line; it is in no log and in no error.
    ///
    /// ```
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000").api_key("root").build()?;
    /// assert!(!format!("{client:?}").contains("root"));
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// How long a call may take, all attempts and waits together; 300 s by default. [`Duration::MAX`] is for ever.
    ///
    /// It goes on while a stream is read: one that is not over by then ends with [`ErrorKind::Deadline`](crate::ErrorKind::Deadline). A
    /// wait that would be longer than what is left is not begun. With each attempt the server is told how much is left.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000")
    ///     .timeout(Duration::from_secs(20))
    ///     .build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How long a single attempt may take, up to its answer or the first text of a stream, before it is given up and another
    /// one made. By default as long as the call.
    ///
    /// What is given up counts as a failed connection: it is tried again with the same `Idempotency-Key`, and so gets what the server has
    /// generated meanwhile. Shorter than the longest answer takes, it only makes the server begin again and again.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000")
    ///     .attempt_timeout(Duration::from_secs(60))
    ///     .build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = Some(timeout);
        self
    }

    /// How long a connection may take to be made; 10 s by default.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000")
    ///     .connect_timeout(Duration::from_millis(500))
    ///     .build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// When another attempt is made; by default as the guide recommends. [`Retry::never`] switches it off.
    ///
    /// ```
    /// use llm_engine_client::{Backoff, Client, Retry, Stop};
    ///
    /// let patient = Retry::new(Backoff::default(), Stop::after_attempts(20));
    /// let client = Client::builder("http://127.0.0.1:5000").retry(patient).build()?;
    /// let impatient = Client::builder("http://127.0.0.1:5000").retry(Retry::never()).build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// How long the server shall go on with a request whose connection broke, so that the next attempt can have its answer; 30
    /// by default, 0 to not.
    ///
    /// At most 300: a server refuses more. With 0 an answer that was on its way when the connection broke is generated, and
    /// charged, anew.
    ///
    /// ```
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000").keep_seconds(120).build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn keep_seconds(mut self, seconds: u32) -> Self {
        self.settings.keep = Duration::from_secs(seconds.into());
        self
    }

    /// The lines in which its calls stand, instead of those of all clients of the process.
    #[must_use]
    pub fn lines(mut self, lines: Lines) -> Self {
        self.lines = Some(lines);
        self
    }

    /// What the client says that it is.
    ///
    /// ```
    /// let client = llm_engine_client::Client::builder("http://127.0.0.1:5000")
    ///     .user_agent("summaries/1.4")
    ///     .build()?;
    /// # Ok::<_, llm_engine_client::BuildError>(())
    /// ```
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Trusts these certificate authorities too, in PEM form: for servers inside of an organisation. Mozilla's are
    /// always trusted.
    ///
    /// ```no_run
    /// let pem = std::fs::read("ca.pem")?;
    /// let client = llm_engine_client::Client::builder("https://llm.internal").root_certificates(pem).build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// The client. It does not connect: whether the server is there is seen by the first call.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong with the settings.
    pub fn build(self) -> Result<Client, BuildError> {
        let base = Base::parse(&self.base_url)?;
        let authorization = self.api_key.as_deref().map(bearer).transpose()?;
        let user_agent = HeaderValue::try_from(&self.user_agent)
            .map_err(|_| BuildError::UserAgent(self.user_agent.clone()))?;
        let transport = transport::build(user_agent, self.settings.connect_timeout, &self.root_certificates)?;
        Ok(Client::from_parts(
            base,
            self.api_key.as_deref().unwrap_or_default(),
            authorization,
            transport,
            self.settings,
            self.lines.unwrap_or_else(Lines::of_process),
        ))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("base_url", &self.base_url)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn bearer(api_key: &str) -> Result<HeaderValue, BuildError> {
    let mut value = HeaderValue::try_from(format!("Bearer {api_key}")).map_err(|_| BuildError::ApiKey)?;
    value.set_sensitive(true);
    Ok(value)
}
