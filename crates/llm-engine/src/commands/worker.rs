use std::num::NonZeroU32;
use std::path::PathBuf;

/// What `worker` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The model file.
    #[arg(long)]
    gguf: PathBuf,
    /// The Unix socket to listen on.
    #[arg(long)]
    socket: PathBuf,
    /// The name of the model.
    #[arg(long)]
    model: String,
    /// How many requests are generated at the same time.
    #[arg(long)]
    parallel: Option<NonZeroU32>,
    /// The most tokens, prompt and answer together, of one request.
    #[arg(long)]
    context_tokens: Option<NonZeroU32>,
    /// Threads that compute.
    #[arg(long)]
    threads: Option<NonZeroU32>,
}

/// Runs the model until standard input ends, which it does when the server that started this process ends.
#[cfg(feature = "worker")]
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use llm_engine_worker::Options;

    let mut options = Options::new(arguments.gguf, arguments.socket, arguments.model);
    options.parallel = arguments.parallel.unwrap_or(options.parallel);
    options.context_tokens = arguments.context_tokens.unwrap_or(options.context_tokens);
    options.threads = arguments.threads.unwrap_or(options.threads);
    let parent_gone = async {
        // Reading blocks a thread of its own, which the end of the process ends.
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            drop(sender);
        });
        let _ = receiver.await;
    };
    llm_engine_worker::run(options, parent_gone).context("the model worker")
}

/// Says what is missing.
#[cfg(not(feature = "worker"))]
pub(crate) fn run(_arguments: Arguments) -> anyhow::Result<()> {
    Err(super::Usage(NO_WORKER.to_owned()).into())
}

/// What to do about a build without the model runner.
pub(crate) const NO_WORKER: &str = "this build has no model runner for gguf files; build it with `--features worker`, as \
                                    `make run` does, or use deployments = [{ url = …, model = … }]";
