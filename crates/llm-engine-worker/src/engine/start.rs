//! Bringing the engine thread up.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use llama_cpp_2::LlamaCppError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use tokio::sync::oneshot;

use super::batch::IDLE_PROMPT_TOKENS;
use super::event::Submission;
use super::{Engine, StepError};
use crate::counters::Counters;
use crate::error::Error;
use crate::model::Model;
use crate::options::Options;
use crate::refusal::Refusal;
use crate::sampler::Scratch;

/// llama.cpp's `LLAMA_MAX_SEQ`.
const MAX_PARALLEL: u32 = 256;

/// The most tokens of one decode step: a piece of a prompt, and one token of each other request.
fn batch_tokens(parallel: NonZeroU32) -> u32 {
    parallel.get() + u32::try_from(IDLE_PROMPT_TOKENS).unwrap_or(u32::MAX)
}

/// The way into the engine.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    submissions: Sender<Submission>,
    counters: Arc<Counters>,
    /// The most unfinished answers; a request of several may go beyond it.
    most: u64,
}

impl Intake {
    /// Hands a request over.
    ///
    /// # Errors
    /// 429 if too many requests are unfinished, 500 if the engine has ended.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Refusal> {
        let answers = u64::try_from(submission.generation.choices()).unwrap_or(u64::MAX);
        if !self.counters.try_begin(answers, self.most) {
            return Err(Refusal::full());
        }
        self.submissions.send(submission).map_err(|_| {
            Counters::subtract(&self.counters.unfinished, answers);
            Refusal::failed("the model is not running")
        })
    }
}

/// The thread, once the model is loaded and has decoded a token.
#[derive(Debug)]
pub(crate) struct EngineThread {
    pub(crate) model: Arc<Model>,
    pub(crate) intake: Intake,
    /// Closed when the thread has ended, however it did.
    pub(crate) ended: oneshot::Receiver<()>,
    pub(crate) thread: JoinHandle<()>,
}

/// Loads the model on a thread of its own and waits until it can generate.
///
/// # Errors
/// All that can be wrong with the model file and the options.
pub(crate) fn start(options: &Options, counters: &Arc<Counters>) -> Result<EngineThread, Error> {
    check(options)?;
    let (submissions, receiver) = mpsc::channel();
    let (loaded_sender, loaded) = mpsc::channel();
    let (ended_sender, ended) = oneshot::channel();
    let thread_options = options.clone();
    let thread_counters = Arc::clone(counters);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let alive = Alive {
                counters: Arc::clone(&thread_counters),
                _ended: ended_sender,
            };
            live(&thread_options, &receiver, &thread_counters, &loaded_sender);
            drop(alive);
        })
        .map_err(Error::Start)?;
    let model = loaded.recv().map_err(|_| Error::EngineEnded)??;
    let most = u64::from(options.parallel.get()) + u64::from(options.max_waiting);
    let intake = Intake {
        submissions,
        counters: Arc::clone(counters),
        most,
    };
    Ok(EngineThread {
        model,
        intake,
        ended,
        thread,
    })
}

/// Says that the thread has ended, also when it panics.
struct Alive {
    counters: Arc<Counters>,
    _ended: oneshot::Sender<()>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.counters.alive.store(false, Ordering::Release);
    }
}

/// The life of the engine thread.
fn live(
    options: &Options,
    submissions: &Receiver<Submission>,
    counters: &Arc<Counters>,
    loaded: &mpsc::Sender<Result<Arc<Model>, Error>>,
) {
    let model = match backend().and_then(|backend| Model::load(backend, options)) {
        Ok(model) => Arc::new(model),
        Err(error) => return drop(loaded.send(Err(error))),
    };
    let mut engine = match backend().and_then(|backend| Engine::new(backend, &model, options, counters)) {
        Ok(engine) => engine,
        Err(error) => return drop(loaded.send(Err(error))),
    };
    counters.alive.store(true, Ordering::Release);
    if loaded.send(Ok(Arc::clone(&model))).is_ok() {
        engine.work(submissions);
    }
}

/// llama.cpp can be set up once per process; it stays set up.
pub(crate) fn backend() -> Result<&'static LlamaBackend, Error> {
    static BACKEND: OnceLock<Result<LlamaBackend, LlamaCppError>> = OnceLock::new();
    BACKEND
        .get_or_init(LlamaBackend::init)
        .as_ref()
        .map_err(|_| Error::BackendTaken)
}

fn check(options: &Options) -> Result<(), Error> {
    let parallel = options.parallel.get();
    if parallel > MAX_PARALLEL {
        let reason = "llama.cpp runs at most 256 sequences at a time";
        return Err(Error::Option {
            option: "parallel",
            value: parallel.into(),
            reason,
        });
    }
    if i32::try_from(options.threads.get()).is_err() {
        let value = options.threads.get().into();
        return Err(Error::Option {
            option: "threads",
            value,
            reason: "there are not so many",
        });
    }
    Ok(())
}

impl<'model> Engine<'model> {
    fn new(
        backend: &LlamaBackend,
        model: &'model Model,
        options: &Options,
        counters: &Arc<Counters>,
    ) -> Result<Self, Error> {
        let mut context = new_context(backend, model, options)?;
        let most = batch_tokens(options.parallel);
        let mut batch = LlamaBatch::new(usize::try_from(most).unwrap_or(usize::MAX), 1);
        try_out(&mut context, &mut batch, model).map_err(|error| Error::Unservable {
            reason: error.to_string(),
        })?;
        let places = (0..options.parallel.get()).map(|_| None).collect();
        Ok(Self {
            model,
            context,
            batch,
            places,
            waiting: std::collections::VecDeque::new(),
            scratch: Scratch::default(),
            counters: Arc::clone(counters),
            admitted: 0,
        })
    }
}

fn new_context<'model>(
    backend: &LlamaBackend,
    model: &'model Model,
    options: &Options,
) -> Result<LlamaContext<'model>, Error> {
    let parallel = options.parallel.get();
    let context_tokens = u32::try_from(model.context_tokens()).unwrap_or(u32::MAX);
    // llama.cpp divides the whole evenly and rounds each part up to a multiple of 256.
    let whole = context_tokens
        .checked_next_multiple_of(256)
        .and_then(|tokens| tokens.checked_mul(parallel));
    let Some(whole) = whole.filter(|&whole| i32::try_from(whole).is_ok()) else {
        let reason = "times 'parallel' it is more than llama.cpp can count";
        return Err(Error::Option {
            option: "context_tokens",
            value: context_tokens.into(),
            reason,
        });
    };
    let most = batch_tokens(options.parallel);
    let threads = i32::try_from(options.threads.get()).unwrap_or(1);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(whole))
        .with_n_seq_max(parallel)
        // One piece, so that a step is never computed in parts, and so that the buffers stay small.
        .with_n_batch(most)
        .with_n_ubatch(most)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_kv_unified(false);
    let context = model
        .llama()
        .new_context(backend, params)
        .map_err(|source| Error::NoContext {
            parallel,
            context_tokens,
            source,
        })?;
    if context.n_batch() < most || context.n_ctx() < whole {
        let reason = "llama.cpp made the context smaller than the options ask for";
        return Err(Error::Option {
            option: "context_tokens",
            value: context_tokens.into(),
            reason,
        });
    }
    Ok(context)
}

/// Decodes one token, so that a model that can't is found at the start, and its pages are in memory.
fn try_out(
    context: &mut LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    model: &Model,
) -> Result<(), StepError> {
    batch.add(model.any_token(), 0, &[0], true)?;
    context.decode(batch)?;
    // Panics where the model has no logits: the thread ends, and with it the start.
    let _ = context.get_logits_ith(0);
    context.clear_kv_cache();
    batch.clear();
    Ok(())
}
