//! `llm-engine serve` as a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Answer, Frames, STREAM, SYNC};
use crate::program::SETTINGS;
use crate::until::until;
#[cfg(feature = "worker")]
use crate::worker::Worker;

/// The machine to oneself, as far as these tests go: they load models and measure time. Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _lock: File,
}

/// A running server. Dropped, it is killed; its workers then end by themselves.
pub(crate) struct Server {
    pub(crate) address: String,
    /// What it printed up to `ready after`.
    pub(crate) summary: Vec<String>,
    process: Child,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Holds the configuration, the log, and the temporary folder of the server.
    folder: TempDir,
}

/// How a server is started.
#[derive(Debug, Default)]
pub(crate) struct Options<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// Loading a model takes a second; other work on this machine may stretch it.
const START: Duration = Duration::from_secs(30);

/// The name of its configuration.
const CONFIG: &str = "engine.toml";

/// The key that is sent if a test is not about keys.
const KEY: &str = "root";

impl Turn {
    /// Waits for it.
    pub(crate) fn take() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("one-at-a-time.lock");
        let file = File::create(path).unwrap();
        file.lock().unwrap();
        Self { _lock: file }
    }
}

/// The model file.
#[cfg(feature = "worker")]
pub(crate) fn gguf() -> PathBuf {
    let path = std::env::var_os("LLM_ENGINE_TEST_GGUF").map(PathBuf::from);
    let path = path.expect("set LLM_ENGINE_TEST_GGUF to the path of a model file");
    assert!(
        path.is_file(),
        "LLM_ENGINE_TEST_GGUF is {}, which is no file",
        path.display()
    );
    std::path::absolute(path).unwrap()
}

/// A section for a model with this name and these further lines.
#[cfg(feature = "worker")]
pub(crate) fn model(name: &str, lines: &str) -> String {
    format!("[models.{name}]\ngguf = '{}'\n{lines}\n", gguf().display())
}

fn configuration(sections: &str) -> String {
    format!("listen = '127.0.0.1:0'\n{sections}")
}

impl Server {
    /// A server with these sections, ready to answer.
    pub(crate) fn start(turn: &Turn, sections: &str) -> Self {
        Self::start_with(turn, sections, Options::default())
    }

    pub(crate) fn start_with(turn: &Turn, sections: &str, options: Options<'_>) -> Self {
        let mut server = Self::begin(turn, sections, options);
        server.wait_until_ready();
        server
    }

    /// A server that has been started just now. What it prints is not read.
    pub(crate) fn begin(_turn: &Turn, sections: &str, options: Options<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join(CONFIG);
        std::fs::write(&config, configuration(sections)).unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_llm-engine"));
        command
            .args(["serve", "--config", config.to_str().unwrap()])
            .args(options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("stderr")).unwrap());
        for name in SETTINGS {
            command.env_remove(name);
        }
        command.env("TMPDIR", folder.path().join("tmp"));
        command.envs(options.environment.iter().copied());
        Self {
            address: String::new(),
            summary: Vec::new(),
            process: command.spawn().unwrap(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            folder,
        }
    }

    /// Reads what it prints.
    fn wait_until_ready(&mut self) {
        let output = BufReader::new(self.process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Reads on to the end, so that the server can always write.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            let line = lines.recv_timeout(START);
            let line =
                line.unwrap_or_else(|error| panic!("the server is not ready ({error}):\n{}", self.log()));
            if let Some(address) = line.strip_prefix("address ") {
                address.trim().clone_into(&mut self.address);
            }
            let ready = line.starts_with("ready after ");
            self.summary.push(line);
            if ready {
                return;
            }
        }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    /// Posts JSON with a key.
    pub(crate) async fn post_as(&self, key: &str, target: &str, body: &Value) -> Response<Incoming> {
        let request = Request::post(format!("{}{target}", self.address))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        self.send(request.body(Full::new(body.to_string().into())).unwrap())
            .await
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Response<Incoming> {
        self.post_as(KEY, target, body).await
    }

    /// Asks model `m` for a whole answer.
    pub(crate) async fn complete(&self, body: &Value) -> Answer {
        Answer::read(self.post(SYNC, body).await).await
    }

    /// Asks model `m` for a stream, which has to begin.
    pub(crate) async fn stream(&self, body: &Value) -> Frames {
        Frames::of(self.post(STREAM, body).await)
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        let request = Request::get(format!("{}{target}", self.address));
        Answer::read(self.send(request.body(Full::default()).unwrap()).await).await
    }

    /// Asks with a key.
    pub(crate) async fn get_as(&self, key: &str, target: &str) -> Answer {
        let request = Request::get(format!("{}{target}", self.address));
        let request = request.header("authorization", format!("Bearer {key}"));
        Answer::read(self.send(request.body(Full::default()).unwrap()).await).await
    }

    /// How the limits of the key stand, for the first model.
    pub(crate) async fn limits(&self) -> Vec<Value> {
        let answer = self.get_as(KEY, "/v1/limits").await.json();
        answer["data"][0]["limits"].as_array().unwrap().clone()
    }

    /// The process that runs this model, which answers.
    #[cfg(feature = "worker")]
    pub(crate) fn worker(&self, model: &str) -> Worker {
        let found = Worker::find(self.process.id(), self.folder.path(), model);
        found.unwrap_or_else(|| panic!("the server has no worker for {model}:\n{}", self.log()))
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Returns how it ended, which it has to do within this time.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let process = &mut self.process;
        let (status, _) = until("the server ends", within, async || process.try_wait().unwrap()).await;
        status
    }

    /// Its configuration, which it looks at again and again.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Writes other sections into its configuration, and nothing else about the file.
    pub(crate) fn configure(&self, sections: &str) {
        std::fs::write(self.config(), configuration(sections)).unwrap();
    }

    /// The folders of its workers' sockets.
    #[cfg(feature = "worker")]
    pub(crate) fn socket_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// What it has written to standard error so far, its workers' lines included.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            let _ = writeln!(std::io::stderr(), "the server's last lines:\n{last}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal to a process that this test has started.
pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {name} {process}");
}
