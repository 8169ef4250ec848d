use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use llguidance::api::ParserLimits;
use llguidance::{Matcher, ParserFactory};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use super::form::Form;
use super::grammar::grammar;
use super::guide::Guide;
use crate::model::Model;
use crate::refusal::Refusal;

/// Compiles forms, one at a time, on threads that end with their work: the model's thread and the streams go on
/// meanwhile, and what compiling took of memory is given back.
pub(crate) struct Compiler {
    model: Arc<Model>,
    /// The vocabulary as `llguidance` needs it. Made for the first form; most workers never see one.
    factory: OnceLock<ParserFactory>,
    room: Arc<Semaphore>,
    compiled: Mutex<Compiled>,
}

/// How long a request may wait for others' forms, and its own may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// References and brackets nest, within bounds; only what is used of it becomes memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The longest reason, in characters: it may quote what was sent.
const MAX_REASON: usize = 500;

impl Compiler {
    pub(crate) fn new(model: Arc<Model>) -> Arc<Self> {
        Arc::new(Self {
            model,
            factory: OnceLock::new(),
            room: Arc::new(Semaphore::new(1)),
            compiled: Mutex::default(),
        })
    }

    /// A guide for answers of this form.
    ///
    /// # Errors
    /// A 400 with what is wrong with the form; a 429 if too many others are being compiled.
    pub(crate) async fn guide(self: &Arc<Self>, form: &Form) -> Result<Guide, Refusal> {
        if let Some(guide) = self.compiled().find(form) {
            return Ok(guide);
        }
        let room = timeout(PATIENCE, Arc::clone(&self.room).acquire_owned()).await;
        let Ok(Ok(permit)) = room else {
            return Err(Refusal::full());
        };
        // Somebody may have waited for the same one.
        if let Some(guide) = self.compiled().find(form) {
            return Ok(guide);
        }
        match timeout(PATIENCE, self.compile_on_a_thread(form.clone(), permit)?).await {
            Ok(Ok(compiled)) => compiled.map_err(|reason| refusal(form, &reason)),
            // Odd vocabularies and other surprises.
            Ok(Err(_)) => Err(refusal(form, "it can't be compiled")),
            Err(_) => Err(refusal(form, "it takes too long to compile")),
        }
    }

    /// The permit goes to the thread: who stops waiting for it does not free its room.
    fn compile_on_a_thread(
        self: &Arc<Self>,
        form: Form,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Guide, String>>, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let this = Arc::clone(self);
        let work = move || {
            let compiled = this.compile(form);
            drop(permit);
            // Nobody may be waiting any more; it is kept for the next one.
            let _ = sender.send(compiled);
        };
        let thread = thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES);
        match thread.spawn(work) {
            Ok(_) => Ok(receiver),
            Err(_) => Err(Refusal::failed("there is no thread for the grammar")),
        }
    }

    fn compile(&self, form: Form) -> Result<Guide, String> {
        let grammar = grammar(&form.rule)?;
        let factory = self.factory.get_or_init(|| factory(&self.model));
        let mut matcher = Matcher::new(factory.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            return Err(error);
        }
        // The first mask is the dearest one, and without one there is no answer.
        matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        let guide = Guide::new(matcher);
        let another = guide.another();
        self.compiled().keep(form, guide);
        Ok(another)
    }

    fn compiled(&self) -> MutexGuard<'_, Compiled> {
        // No operation under the lock can leave the list half changed.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Compiler").finish_non_exhaustive()
    }
}

/// The forms that were used last, none of them begun.
#[derive(Debug, Default)]
struct Compiled {
    /// The one used last is the last.
    guides: VecDeque<(Form, Guide)>,
}

impl Compiled {
    /// The most forms, and the most bytes of them together. The worst becomes 240 times its size.
    const MOST: usize = 64;
    const MOST_BYTES: usize = 256 * 1024;

    fn find(&mut self, form: &Form) -> Option<Guide> {
        let at = self
            .guides
            .iter()
            .position(|(known, _)| known.rule == form.rule)?;
        let found = self.guides.remove(at)?;
        let guide = found.1.another();
        self.guides.push_back(found);
        Some(guide)
    }

    fn keep(&mut self, form: Form, guide: Guide) {
        self.guides.push_back((form, guide));
        let bytes = |guides: &VecDeque<(Form, Guide)>| {
            guides.iter().map(|(form, _)| form.rule.bytes()).sum::<usize>()
        };
        while self.guides.len() > Self::MOST || bytes(&self.guides) > Self::MOST_BYTES {
            self.guides.pop_front();
        }
    }
}

fn factory(model: &Model) -> ParserFactory {
    let (words, ends) = model.words();
    let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
    let trie = TokTrie::from(&TokRxInfo::new(size, INVALID_TOKEN), &words);
    // Without any, answers go on until nothing can follow.
    let trie = if ends.is_empty() {
        trie
    } else {
        trie.with_eos_tokens(&ends)
    };
    // Not canonical: forced text is generated token by token like any other, in the tokens that the model prefers.
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).expect("the slices of the vocabulary are valid");
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        // About 1 KiB each, for every answer that is being generated.
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        // The state of the parser is of no use to the caller.
        verbose_errors: false,
        ..ParserLimits::default()
    };
    factory
}

/// The caller's words for what `llguidance` says.
fn refusal(form: &Form, reason: &str) -> Refusal {
    let reason = if reason.starts_with("panic") {
        "it is more than can be computed"
    } else if reason.starts_with("NoExtension") {
        "no text matches it"
    } else if reason.contains("coerce_one_of") {
        "alternatives of 'oneOf' must exclude each other by a constant; use 'anyOf'"
    } else {
        reason
    };
    let reason = reason.replace("Unimplemented keys:", "these keywords are not supported:");
    let reason: String = reason.trim().chars().take(MAX_REASON).collect();
    Refusal::invalid(form.param, format!("'{}' can't be obeyed: {reason}", form.param))
}
