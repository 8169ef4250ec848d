use std::io;
use std::path::PathBuf;

/// Why the worker could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator's fault: no such file.
    #[error("there is no model file at {path}")]
    NoModelFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// llama.cpp refused the file; its own log lines say why.
    #[error("the model file {path} can't be loaded")]
    Load {
        /// The file.
        path: PathBuf,
        /// llama.cpp's reason, as far as it gives one.
        source: llama_cpp_2::LlamaModelLoadError,
    },
    /// The file holds something that this runner can't generate text with.
    #[error("the model can't be served: {reason}")]
    Unservable {
        /// What is missing or odd.
        reason: String,
    },
    /// The options don't fit together.
    #[error("the option {option} can't be {value}: {reason}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// The bound that it breaks.
        reason: &'static str,
    },
    /// Most often: too little memory for `parallel` times `context_tokens`.
    #[error("llama.cpp can't make room for {parallel} requests of {context_tokens} tokens")]
    NoContext {
        /// Requests at a time.
        parallel: u32,
        /// Tokens of each.
        context_tokens: u32,
        /// llama.cpp's reason, as far as it gives one.
        source: llama_cpp_2::LlamaContextLoadError,
    },
    /// Somebody else in this process has set llama.cpp up.
    #[error("llama.cpp is in use elsewhere in this process")]
    BackendTaken,
    /// The socket can't be listened on.
    #[error("can't listen on {socket}")]
    Listen {
        /// The path of the socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused a thread or an event loop.
    #[error("can't start")]
    Start(#[source] io::Error),
    /// The thread that owns the model has ended; the process is of no use any more.
    #[error("the engine thread has ended")]
    EngineEnded,
}
