//! A worker that runs in this process until it is dropped.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::thread::JoinHandle;

use llm_engine_worker::{Error, Options, Worker};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::client::Client;

pub(crate) const MODEL: &str = "smollm2-135m";

/// Small enough to start quickly, and to be filled by a test.
pub(crate) const CONTEXT_TOKENS: u32 = 256;

pub(crate) struct Running {
    pub(crate) client: Client,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
    _folder: TempDir,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut options = options(&folder);
        change(&mut options);
        let socket = options.socket.clone();
        let worker = Worker::start(options).unwrap();
        let (shutdown, stop) = oneshot::channel();
        let thread = std::thread::spawn(move || worker.serve(async move { drop(stop.await) }));
        Self {
            client: Client::new(socket),
            shutdown: Some(shutdown),
            thread: Some(thread),
            _folder: folder,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        let ended = self.thread.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

pub(crate) fn options(folder: &TempDir) -> Options {
    let gguf = std::env::var_os("LLM_ENGINE_TEST_GGUF").map(PathBuf::from);
    let gguf = gguf.expect("set LLM_ENGINE_TEST_GGUF to the path of SmolLM2-135M-Instruct.Q4_1.gguf");
    let mut options = Options::new(gguf, folder.path().join("worker.sock"), MODEL.to_owned());
    options.context_tokens = NonZeroU32::new(CONTEXT_TOKENS).unwrap();
    options
}
