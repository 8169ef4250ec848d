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

/// What the engine says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// One more token was generated.
    Progress {
        /// The text that became certain with it; may be empty.
        text: String,
        /// What was used so far.
        usage: Usage,
    },
    /// No more events follow.
    End {
        /// The rest of the text.
        text: String,
        reason: FinishReason,
        /// What was used in all.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model said so, or a stop sequence is complete.
    Stop,
    /// The request's maximum is reached.
    Length,
    /// Nobody wants the rest.
    Cancelled,
    /// Not the caller's fault.
    Failed(&'static str),
}
