use std::num::NonZeroU32;
use std::path::PathBuf;

/// What to serve, where, and within which bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model file.
    pub gguf: PathBuf,
    /// The Unix socket to listen on. A stale socket file at that path is removed first.
    pub socket: PathBuf,
    /// The name that requests must ask for.
    pub model_name: String,
    /// How many requests are generated at the same time; at most 256.
    pub parallel: NonZeroU32,
    /// The most tokens, prompt and answer together, of one request. Never more than the model was trained on.
    pub context_tokens: NonZeroU32,
    /// Threads that compute. Two busy threads on two busy cores wait for each other, so the default leaves one core.
    pub threads: NonZeroU32,
    /// The most output tokens of a chat request that names no maximum.
    pub default_max_tokens: NonZeroU32,
    /// How many requests may wait for one of the `parallel` places; more are refused with 429.
    pub max_waiting: u32,
}

impl Options {
    /// The defaults: 4 requests at a time of 2,048 tokens each, 512 output tokens where the caller names no maximum,
    /// 64 waiting requests, all cores but one.
    #[must_use]
    pub fn new(gguf: PathBuf, socket: PathBuf, model_name: String) -> Self {
        Self {
            gguf,
            socket,
            model_name,
            parallel: at_least_one(4),
            context_tokens: at_least_one(2048),
            threads: default_threads(),
            default_max_tokens: at_least_one(512),
            max_waiting: 64,
        }
    }
}

fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

fn default_threads() -> NonZeroU32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    at_least_one(u32::try_from(cores).unwrap_or(u32::MAX).saturating_sub(1))
}
