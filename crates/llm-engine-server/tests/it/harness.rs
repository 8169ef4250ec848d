use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use llm_engine_server::config::Config;
use llm_engine_server::{
    App, Cores, Drained, Gateway, Listening, ProxySetup, Setup, Storage, Tls, WorkerSetup, serve,
};
use scripted_upstream::{EventStream, Upstream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::conformance::{self, Asked};

/// A server under test; its callers are `k` and `other`, each with its name for a key.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shutdown: Mutex<Option<oneshot::Sender<()>>>,
    served: JoinHandle<Drained>,
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) app: App,
    /// What it was started with.
    pub(crate) config: Config,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// When the clock on the wall begins: one half-day before a day ends, six and a half before a month does.
const NOON: &str = "2026-11-24T12:00:00Z";

/// The time of day, on the clock that tests can freeze.
pub(crate) fn wall_clock() -> Timestamp {
    // Tests that run at the same time have clocks of their own.
    thread_local!(static START: Instant = Instant::now());
    NOON.parse::<Timestamp>().unwrap() + START.with(Instant::elapsed)
}

/// SHA-256 of `k` and `other`.
pub(crate) const CALLERS: &str = r#"
[callers.k]
api_key_sha256 = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"
[callers.other]
api_key_sha256 = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"
"#;

impl Server {
    /// The model `m` at this upstream under these lines of configuration, of which those before the first section
    /// belong to the model.
    pub(crate) async fn start(upstream: &str, more: &str) -> Self {
        Self::with_config(&config(upstream, more)).await
    }

    pub(crate) async fn with_config(text: &str) -> Self {
        Self::of(Config::parse(text, Path::new("test.toml")).unwrap()).await
    }

    pub(crate) async fn of_file(path: &Path) -> Self {
        Self::of(Config::read(path).unwrap()).await
    }

    async fn of(config: Config) -> Self {
        let started = config.clone();
        let no_worker = |_: &_, _: &_| Err::<WorkerSetup, _>("no test here has a model file");
        let setup = Setup {
            models: config
                .models
                .into_iter()
                .map(|model| model.into_setup(no_worker).unwrap())
                .collect(),
            callers: config.callers,
            policies: config.policies,
            socket_folder: std::env::temp_dir(),
            journal: None,
            proxies: ProxySetup::default(),
            telemetry: config.telemetry,
            wall_clock,
        };
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel();
        let gateway = Arc::new(Gateway::start(setup).unwrap());
        let listening = Listening {
            tls: config.tls.map(Tls::new),
            connections: config.connections,
        };
        let storage = config
            .state_folder
            .map(|folder| Storage::open(folder, config.files, config.batches).unwrap());
        let app = App::new(gateway, config.trusted_proxies, config.replay, listening, storage);
        let of_server = app.clone();
        let served = tokio::spawn(async move {
            let shutdown = async {
                let _ = told.await;
            };
            serve(listener, of_server, &Cores::here(), shutdown).await
        });
        Self {
            address,
            shutdown: Mutex::new(Some(shutdown)),
            served,
            client: Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                // Before the server does, where a test lets hours pass.
                .pool_idle_timeout(Duration::from_secs(60))
                .build_http(),
            app,
            config: started,
        }
    }

    /// Sends a request with the key of caller `k` unless `headers` has another.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default().as_bytes()));
        let request = request.body(body).unwrap();
        let asked = Asked {
            method: method.to_owned(),
            path: request.uri().path().to_owned(),
        };
        let mut response = self.client.request(request).await.unwrap();
        response.extensions_mut().insert(asked);
        response
    }

    /// Posts JSON as caller `k`.
    pub(crate) async fn post(&self, target: &str, body: &Value) -> Response<Incoming> {
        self.post_as("k", target, body).await
    }

    pub(crate) async fn post_as(&self, key: &str, target: &str, body: &Value) -> Response<Incoming> {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        self.send("POST", target, &headers, Some(&body.to_string())).await
    }

    /// Posts JSON as caller `k` with these headers besides.
    pub(crate) async fn post_with(&self, headers: &[(&str, &str)], target: &str, body: &Value) -> Answer {
        let own = [
            ("authorization", "Bearer k"),
            ("content-type", "application/json"),
        ];
        let headers = [&own, headers].concat();
        Answer::read(self.send("POST", target, &headers, Some(&body.to_string())).await).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.get_as("k", target).await
    }

    pub(crate) async fn get_as(&self, key: &str, target: &str) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        Answer::read(self.send("GET", target, &headers, None).await).await
    }

    /// A small v1 request, sync.
    pub(crate) async fn complete(&self) -> Answer {
        Answer::read(self.post(SYNC, &prompt(5)).await).await
    }

    /// Lets everything happen that needs no time, for tests under a frozen clock: what reached a socket before is seen
    /// before these requests are.
    pub(crate) async fn settle(&self) {
        for _ in 0..3 {
            Answer::read(self.send("GET", "/healthz", &[], None).await).await;
        }
    }

    /// Tells the server to end.
    pub(crate) fn shut_down(&self) {
        let shutdown = self.shutdown.lock().unwrap().take();
        shutdown.unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(self) -> Drained {
        self.served.await.unwrap()
    }
}

/// The configuration of [`Server::start`].
pub(crate) fn config(upstream: &str, more: &str) -> String {
    let section = if more.starts_with('[') {
        Some(0)
    } else {
        more.find("\n[")
    };
    let (model, sections) = more.split_at(section.unwrap_or(more.len()));
    format!(
        "listen = '127.0.0.1:0'\n[models.m]\ndeployments = [{{ url = '{upstream}', model = 'upstream', admission = 'off' }}]\n\
         {model}\n{CALLERS}\n{sections}"
    )
}

/// An upstream that answers everything at once, with 3 tokens of prompt and 2 generated.
pub(crate) fn quick() -> impl Future<Output = String> {
    Upstream::answering(|exchange| exchange.answer_words(3, &["a", "b"]))
}

pub(crate) const SYNC: &str = "/v1/llm/completions-sync?model_endpoint_name=m";
pub(crate) const STREAM: &str = "/v1/llm/completions-stream?model_endpoint_name=m";

/// A v1 body that asks for so many tokens.
pub(crate) fn prompt(max_new_tokens: u64) -> Value {
    json!({ "prompt": "p", "max_new_tokens": max_new_tokens, "temperature": 0.2 })
}

/// A v1 body unlike those of other numbers.
pub(crate) fn numbered(number: usize) -> Value {
    json!({ "prompt": format!("p{number}"), "max_new_tokens": 5, "temperature": 0.2 })
}

/// A chat body.
pub(crate) fn chat() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 5 })
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        if let Some(asked) = parts.extensions.get() {
            conformance::check(asked, &parts, &body);
        }
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// By which name it can be asked for later.
    pub(crate) fn request_id(&self) -> &str {
        self.header("x-request-id").unwrap()
    }

    /// When a refused caller may come back.
    pub(crate) fn retry_after(&self) -> Duration {
        let milliseconds: u64 = self.header("retry-after-ms").unwrap().parse().unwrap();
        let seconds: u64 = self.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(
            seconds,
            milliseconds.div_ceil(1000).max(1),
            "both headers say the same"
        );
        assert_eq!(self.header("x-should-retry"), Some("true"));
        Duration::from_millis(milliseconds)
    }

    /// The data of each event, in order.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body
            .split("\n\n")
            .flat_map(|part| part.split("\r\n\r\n"))
            .filter_map(|e| e.strip_prefix("data: "))
            .collect()
    }
}

/// A stream of at most so many tokens, of which the first one has arrived; the upstream holds it open.
pub(crate) async fn running_stream(
    server: &Server,
    upstream: &mut Upstream,
    max_new_tokens: u64,
) -> (Response<Incoming>, EventStream) {
    tokio::join!(
        async {
            let mut response = server.post(STREAM, &prompt(max_new_tokens)).await;
            piece(&mut response).await;
            response
        },
        async {
            let stream = upstream.next().await.stream();
            stream.text("a");
            stream
        }
    )
}

/// Reads one more piece of a streamed body.
pub(crate) async fn piece(response: &mut Response<Incoming>) -> String {
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

/// The number behind this name at `/metrics`.
pub(crate) async fn metric(server: &Server, name: &str) -> Option<String> {
    let text = Answer::read(server.send("GET", "/metrics", &[], None).await)
        .await
        .body;
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find_map(|(found, value)| (found == name).then(|| value.to_owned()))
}

/// What is logged on this thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
