//! The process that runs a model, as the system and its own metrics show it.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;

/// A model worker of a server under test.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) process: u32,
    socket: PathBuf,
}

/// What a worker says of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) running: u64,
    pub(crate) waiting: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) decode_steps: u64,
    pub(crate) cancelled: u64,
}

impl Worker {
    /// The worker of this model among the children of a server whose temporary folder this is.
    pub(crate) fn find(server: u32, folder: &Path, model: &str) -> Option<Self> {
        let process = children(server).into_iter().find(|child| {
            command_line(*child)
                .windows(2)
                .any(|words| words == ["--model", model])
        })?;
        let socket = command_line(process)
            .windows(2)
            .find_map(|words| (words[0] == "--socket").then(|| PathBuf::from(&words[1])))?;
        assert!(
            socket.starts_with(folder),
            "{} is in the server's own temporary folder",
            socket.display()
        );
        Some(Self { process, socket })
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(UnixConnector);
        let uri = hyperlocal::Uri::new(&self.socket, "/metrics").into();
        let body = client.get(uri).await.unwrap().into_body();
        let text = body.collect().await.unwrap().to_bytes();
        let text = str::from_utf8(&text).unwrap();
        let read = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
            let line = line.unwrap_or_else(|| panic!("the worker has no {name}: {text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        Metrics {
            running: read("vllm:num_requests_running"),
            waiting: read("vllm:num_requests_waiting"),
            generated_tokens: read("vllm:generation_tokens_total"),
            decode_steps: read("llm_engine_worker:decode_steps_total"),
            cancelled: read("llm_engine_worker:requests_cancelled_total"),
        }
    }
}

/// Whether a process is there and has not ended; one that has ended may still wait to be noticed by its parent.
pub(crate) fn is_running(process: u32) -> bool {
    status_line(process, "State:").is_some_and(|state| !state.starts_with('Z'))
}

/// A size in a process's status (`VmRSS:`, `VmHWM:`), in MB.
pub(crate) fn megabytes(process: u32, name: &str) -> u64 {
    let size = status_line(process, name).unwrap_or_else(|| panic!("process {process} has no {name}"));
    let kilobytes: u64 = size.strip_suffix(" kB").unwrap().trim().parse().unwrap();
    kilobytes.div_ceil(1000)
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|process| status_line(*process, "PPid:").is_some_and(|found| found == parent.to_string()))
        .collect()
}

fn status_line(process: u32, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().to_owned())
}

/// Empty for a process that has ended.
fn command_line(process: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}
