use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Usage;
use tokio::sync::mpsc::UnboundedSender;

use crate::generation::Generation;
use crate::registry::Registration;

/// A request on its way to the engine.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) generation: Generation,
    /// Unbounded, so that a slow reader can't stop the engine. It holds at most the request's maximum of tokens.
    pub(crate) events: UnboundedSender<Event>,
    pub(crate) registration: Registration,
}

/// What the engine says about one answer of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Which of the answers.
    pub(crate) choice: usize,
    /// The text that became certain; may be empty.
    pub(crate) text: String,
    /// The token that was generated and how likely it was, where the request asks for that.
    pub(crate) likelihood: Option<Likelihood>,
    /// Why this answer has ended, if it has.
    pub(crate) reason: Option<FinishReason>,
    /// What the whole request has used so far.
    pub(crate) usage: Usage,
    /// Whether the request has ended with it: no more events follow.
    pub(crate) is_last: bool,
}

/// How likely a token was, by the model alone: before penalties, temperature and what a grammar allows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likelihood {
    pub(crate) token: LlamaToken,
    /// The natural logarithm of its probability.
    pub(crate) logprob: f32,
    /// The likeliest tokens in its place, the likeliest first.
    pub(crate) top: Vec<(LlamaToken, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model said so, a stop sequence is complete, or what was asked for is.
    Stop,
    /// The request's maximum is reached.
    Length,
    /// Nobody wants the rest.
    Cancelled,
    /// Not the caller's fault.
    Failed(&'static str),
}
