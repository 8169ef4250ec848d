//! Embeddings: the mean of the model's last hidden states over a text, scaled to length 1.
//!
//! Any model has them, though one that was trained to write is no good judge of likeness. They are computed in a context
//! of their own, so that no place of the engine is taken and nothing there waits. The context is made for one request, as
//! large as its longest text, and is gone after it: a worker that is asked for none pays nothing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::cancel::CancelFlag;
use crate::counters::Counters;
use crate::engine::backend;
use crate::model::Model;
use crate::refusal::Refusal;

/// The most tokens of one step: more at a time is hardly faster, and takes more memory, since the model computes the
/// logits of each as well.
const STEP_TOKENS: usize = 32;

/// The most tokens of one text. The context takes 23 KiB for each with the built-in model.
pub(crate) const MAX_TEXT_TOKENS: usize = 1024;

/// How many requests may wait for the one that is being computed.
const MAX_WAITING: usize = 64;

/// Computes embeddings, for one request at a time.
#[derive(Debug)]
pub(crate) struct Embedder {
    model: Arc<Model>,
    counters: Arc<Counters>,
    threads: i32,
    line: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// What came of a request: an embedding for each text, unless it was cancelled, and how many tokens were read.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) embeddings: Option<Vec<Vec<f32>>>,
    pub(crate) read: usize,
}

/// Why there is none. All of it is llama.cpp's fault or memory's.
#[derive(Debug, thiserror::Error)]
enum EmbedError {
    #[error("there is no room for a context")]
    Context(#[from] llama_cpp_2::LlamaContextLoadError),
    #[error("the batch is full")]
    Batch(#[from] llama_cpp_2::llama_batch::BatchAddError),
    #[error("the model could not decode")]
    Decode(#[from] llama_cpp_2::DecodeError),
    #[error("the model has no hidden states")]
    Embeddings(#[from] llama_cpp_2::EmbeddingsError),
    #[error("llama.cpp is not set up")]
    Backend,
}

impl Embedder {
    pub(crate) fn new(model: Arc<Model>, counters: Arc<Counters>, threads: NonZeroU32) -> Self {
        Self {
            model,
            counters,
            threads: i32::try_from(threads.get()).unwrap_or(1),
            line: Arc::new(Semaphore::new(MAX_WAITING + 1)),
            room: Arc::new(Semaphore::new(1)),
        }
    }

    /// Embeds texts of at least one token each.
    ///
    /// # Errors
    /// 429 if too many wait, 500 if the model fails.
    pub(crate) async fn embed(
        &self,
        texts: Vec<Vec<LlamaToken>>,
        cancel: CancelFlag,
    ) -> Result<Embedded, Refusal> {
        let line = Arc::clone(&self.line)
            .try_acquire_owned()
            .map_err(|_| Refusal::full())?;
        let failed = || Refusal::failed("the model could not embed");
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| failed())?;
        let (sender, receiver) = oneshot::channel();
        let (model, counters, threads) = (Arc::clone(&self.model), Arc::clone(&self.counters), self.threads);
        let work = move |_permits: [OwnedSemaphorePermit; 2]| {
            // Nobody may be waiting any more.
            let _ = sender.send(embed_all(&model, threads, &texts, &cancel, &counters));
        };
        thread::Builder::new()
            .name("embeddings".to_owned())
            .spawn(move || work([line, room]))
            .map_err(|_| failed())?;
        match receiver.await {
            Ok(Ok(embedded)) => Ok(embedded),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "embeddings failed");
                Err(failed())
            }
            Err(_) => Err(failed()),
        }
    }
}

fn embed_all(
    model: &Model,
    threads: i32,
    texts: &[Vec<LlamaToken>],
    cancel: &CancelFlag,
    counters: &Counters,
) -> Result<Embedded, EmbedError> {
    let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
    let mut context = new_context(model, threads, longest)?;
    let mut batch = LlamaBatch::new(STEP_TOKENS, 1);
    let (mut embeddings, mut read) = (Vec::with_capacity(texts.len()), 0);
    for text in texts {
        let mut sum = Vec::new();
        context.clear_kv_cache();
        for (piece, tokens) in text.chunks(STEP_TOKENS).enumerate() {
            if cancel.is_set() {
                return Ok(Embedded {
                    embeddings: None,
                    read,
                });
            }
            step(&mut context, &mut batch, piece * STEP_TOKENS, tokens, &mut sum)?;
            read += tokens.len();
            Counters::add(
                &counters.prompt_tokens,
                u64::try_from(tokens.len()).unwrap_or(u64::MAX),
            );
        }
        embeddings.push(unit(&sum));
    }
    let embeddings = Some(embeddings);
    Ok(Embedded { embeddings, read })
}

fn new_context(model: &Model, threads: i32, longest: usize) -> Result<LlamaContext<'_>, EmbedError> {
    let step = u32::try_from(STEP_TOKENS).unwrap_or(u32::MAX);
    // Never more than the context of one place, which was checked at the start.
    let tokens = u32::try_from(longest).unwrap_or(u32::MAX).max(step);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(tokens))
        .with_n_seq_max(1)
        .with_n_batch(step)
        .with_n_ubatch(step)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_embeddings(true)
        .with_pooling_type(LlamaPoolingType::None);
    let backend = backend().map_err(|_| EmbedError::Backend)?;
    Ok(model.llama().new_context(backend, params)?)
}

/// Reads a piece of a text and adds up the hidden states of its tokens.
fn step(
    context: &mut LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    begins: usize,
    tokens: &[LlamaToken],
    sum: &mut Vec<f64>,
) -> Result<(), EmbedError> {
    batch.clear();
    for (position, &token) in (i32::try_from(begins).unwrap_or(i32::MAX)..).zip(tokens) {
        batch.add(token, position, &[0], true)?;
    }
    context.decode(batch)?;
    for index in 0..batch.n_tokens() {
        let state = context.embeddings_ith(index)?;
        sum.resize(state.len(), 0.0);
        for (sum, &value) in sum.iter_mut().zip(state) {
            *sum += f64::from(value);
        }
    }
    Ok(())
}

/// The direction of a vector.
fn unit(vector: &[f64]) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "from -1 to 1")]
    vector.iter().map(|value| (value * scale) as f32).collect()
}
