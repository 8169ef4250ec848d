use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use crate::counters::Counters;
use crate::engine::{self, EngineThread};
use crate::error::Error;
use crate::http;
use crate::options::Options;
use crate::registry::Registry;

/// The target of llama.cpp's own log lines in `tracing`. They keep llama.cpp's levels, which are chatty: a subscriber
/// does well to show this target from `WARN` on.
pub const LLAMA_LOG_TARGET: &str = "llama-cpp-2";

/// Threads that tokenize. Requests are short and the model is the bottleneck, so one and a spare do.
const TOKENIZER_THREADS: usize = 2;

/// llama.cpp splits some vocabularies' text with recursive regular expressions, which need room.
const TOKENIZER_STACK_BYTES: usize = 16 * 1024 * 1024;

/// Loads the model, listens, and answers until `shutdown` completes; requests that are running then are finished.
///
/// # Errors
/// Whatever is wrong with the options, the model file or the socket; [`Error::EngineEnded`] if the model's thread dies.
pub fn run(options: Options, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    Worker::start(options)?.serve(shutdown)
}

/// A worker whose model is loaded and whose socket accepts connections.
#[derive(Debug)]
pub struct Worker {
    options: Options,
    engine: EngineThread,
    counters: Arc<Counters>,
    listener: UnixListener,
}

impl Worker {
    /// Loads the model and binds the socket. From here on connections wait until [`Worker::serve`] answers them.
    ///
    /// # Errors
    /// Whatever is wrong with the options, the model file or the socket.
    pub fn start(options: Options) -> Result<Self, Error> {
        llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default());
        let counters = Arc::new(Counters::default());
        let engine = engine::start(&options, &counters)?;
        let listener = listen(&options.socket).map_err(|source| Error::Listen {
            socket: options.socket.clone(),
            source,
        })?;
        Ok(Self {
            options,
            engine,
            counters,
            listener,
        })
    }

    /// Answers until `shutdown` completes; requests that are running then are finished.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::EngineEnded`].
    pub fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let Self {
            options,
            engine,
            counters,
            listener,
        } = self;
        let EngineThread {
            model,
            intake,
            ended,
            thread,
        } = engine;
        // One thread is enough for parsing and writing; the other cores belong to the model.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(TOKENIZER_THREADS)
            .thread_stack_size(TOKENIZER_STACK_BYTES)
            .build()
            .map_err(Error::Start)?;
        let served = runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::Start)?;
            let front = http::Front::new(&options, model, intake, counters, Arc::new(Registry::default()));
            let server = axum::serve(listener, http::router(front)).with_graceful_shutdown(shutdown);
            tokio::select! {
                served = server => served.map_err(Error::Start),
                _ = ended => Err(Error::EngineEnded),
            }
        });
        drop(runtime);
        remove_socket(&options.socket);
        // The last way into the engine went with the runtime, so its thread ends.
        let ended = thread.join().map_err(|_| Error::EngineEnded);
        served.and(ended)
    }
}

/// Binds the socket for this user only, after removing what a dead worker has left there.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(socket) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path is taken by something else",
            ));
        }
        if UnixStream::connect(socket).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            ));
        }
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remove_socket(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(%error, "the socket file could not be removed");
    }
}
