use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use llm_engine_retry::Retry;

use crate::json::path_segment;

/// Any request to the server. [`Client::call`](crate::Client::call) makes it for a whole answer,
/// [`Client::stream`](crate::Client::stream) for one in pieces.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_client::Call;
///
/// let call = Call::post("/v1/chat/completions", r#"{"model": "m", "messages": []}"#)
///     .model("m")
///     .timeout(Duration::from_secs(10));
/// # let _ = call;
/// ```
#[derive(Clone)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) model: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) idempotency_key: Option<String>,
    /// Whether another call with the same key follows if this one fails.
    pub(crate) comes_again: bool,
    pub(crate) on_wait: Option<OnWait>,
}

/// What is told of each wait: see [`Call::on_wait`].
pub type OnWait = Arc<dyn Fn(&Waiting<'_>) + Send + Sync>;

/// A wait between two attempts that is about to begin.
///
/// ```
/// use std::sync::Arc;
/// use llm_engine_client::{OnWait, Waiting};
///
/// let on_wait: OnWait = Arc::new(|waiting: &Waiting<'_>| match waiting.policy {
///     Some(policy) => eprintln!("limited by {policy} for {:?}", waiting.wait),
///     None => eprintln!("attempt {} failed: {}", waiting.attempt, waiting.message),
/// });
/// # let _ = on_wait;
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Waiting<'a> {
    /// The attempt that failed, from 1.
    pub attempt: u32,
    /// How long until the next one.
    pub wait: Duration,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The server's word for what happened, such as `rate_limited`.
    pub code: Option<&'a str>,
    /// The policy that refused.
    pub policy: Option<&'a str>,
    /// What happened, in words.
    pub message: &'a str,
    /// Whether the server keeps a place for the next attempt.
    pub is_booked: bool,
}

impl Call {
    /// A call by any method. The path begins with `/` and is percent-encoded where it has to be.
    ///
    /// Only a `POST` has an `Idempotency-Key`: by the other methods the same thing done twice is done once, so that they are tried again
    /// without one.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::new(http::Method::PUT, "/v1/llm/fine-tunes/ft-1/cancel");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            model: None,
            timeout: None,
            retry: None,
            max_attempts: None,
            idempotency_key: None,
            comes_again: false,
            on_wait: None,
        }
    }

    /// Asks for something that is there.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::get("/v1/llm/model-endpoints").query("order_by", "newest");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a name to the path, whatever characters it has.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// // GET /v1/llm/model-endpoints/a%2Fb
    /// let call = Call::get("/v1/llm/model-endpoints").segment("a/b");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn segment(mut self, name: &str) -> Self {
        self.path.push('/');
        self.path.push_str(&path_segment(name));
        self
    }

    /// Sends JSON.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let body = serde_json::json!({ "model": "m", "input": "The sky" });
    /// let call = Call::post("/v1/embeddings", body.to_string()).model("m");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn post(path: impl Into<String>, json: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path).body(json)
    }

    /// The body, which is JSON.
    ///
    /// It is sent as `application/json` unless [`header`](Self::header) says otherwise.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::new(http::Method::PUT, "/path").body(r#"{"max_workers": 2}"#);
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn body(mut self, json: impl Into<Bytes>) -> Self {
        self.body = Some(json.into());
        self
    }

    /// Adds a query parameter.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// // GET /v1/llm/model-endpoints?name=a+b%26c
    /// let call = Call::get("/v1/llm/model-endpoints").query("name", "a b&c");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds a header, in place of the client's own of that name if it has one.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use llm_engine_client::Call;
    ///
    /// // Rather held in the server for up to half a minute than refused.
    /// let prefer = HeaderName::from_static("prefer");
    /// let call = Call::post("/v1/completions", "{}").header(prefer, HeaderValue::from_static("wait=30"));
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The model that is asked to generate. Such calls stand in the line of the model, and are cancelled at the server when
    /// they are dropped; others are not.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::post("/v1/completions", r#"{"model": "m", "prompt": "Hello"}"#).model("m");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// How long this call may take in all, instead of the client's timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::get("/v1/models").timeout(Duration::from_secs(2));
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// When another attempt is made, instead of what the client does.
    ///
    /// ```
    /// use llm_engine_client::{Call, Retry};
    ///
    /// let call = Call::get("/v1/models").retry(Retry::never());
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// The most attempts, the first included, whatever their failures are.
    ///
    /// Unlike the [`Stop`](crate::Stop) of a [`Retry`], which may leave refusals that name a time uncounted. 0 is as good as 1.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::get("/v1/models").max_attempts(3);
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// The name by which the server knows the call when it comes again. By default a new one for each call; a name of one's own
    /// lasts longer than the program, so that a call that it made before can be made again without being charged twice.
    ///
    /// 1 to 255 visible ASCII characters. A call of another content under the same key is refused as
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid). A call that is dropped and made again at once may find its work still being
    /// cancelled; with a key of the client's own making that can't be.
    ///
    /// ```
    /// use llm_engine_client::Call;
    ///
    /// let call = Call::post("/v1/completions", r#"{"model": "m", "prompt": "Row 17"}"#)
    ///     .model("m")
    ///     .idempotency_key("nightly-2026-11-28/17");
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Is told of each wait before it begins, for people who wonder what takes so long. It must not block.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use llm_engine_client::{Call, Waiting};
    ///
    /// let call = Call::get("/v1/models").on_wait(Arc::new(|waiting: &Waiting<'_>| {
    ///     eprintln!("{}; next try in {:.1} s", waiting.message, waiting.wait.as_secs_f64());
    /// }));
    /// # let _ = call;
    /// ```
    #[must_use]
    pub fn on_wait(mut self, on_wait: OnWait) -> Self {
        self.on_wait = Some(on_wait);
        self
    }

    /// Whether the server does work for it that is worth keeping, or cancelling.
    /// If it fails, another call follows with the same key, which is to find what the server does for it: so the server is
    /// not told to end it. A call that is dropped is cancelled all the same.
    pub(crate) fn comes_again(mut self) -> Self {
        self.comes_again = true;
        self
    }

    pub(crate) fn generates(&self) -> bool {
        self.method == Method::POST && self.model.is_some()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the body: prompts don't belong in logs.
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("model", &self.model)
            .field("timeout", &self.timeout)
            .field("max_attempts", &self.max_attempts)
            .field("idempotency_key", &self.idempotency_key)
            .finish_non_exhaustive()
    }
}
