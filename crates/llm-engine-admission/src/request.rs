use std::time::Duration;

use llm_engine_limit::{Fingerprint, Subject, Time};

/// A request as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Who sends it and what for. The caller is whom turns are counted for.
    pub subject: Subject,
    /// How urgent it is.
    pub class: Class,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// The most tokens that are generated.
    pub most_output_tokens: u64,
    /// When its caller gives up.
    pub deadline: Option<Time>,
    /// By what it is recognised when it comes again. `None` where no time is to be kept for it.
    pub fingerprint: Option<Fingerprint>,
}

/// Two classes: as long as something of the first is in the queue, nothing of the second has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Nobody does, such as for a row of a batch: it is never refused for the time that it would wait, and those that run leave a
    /// quarter of the places to the first class.
    Batch,
}

impl Class {
    pub(crate) const COUNT: usize = 2;
}

/// The models are full, and so is the queue in front of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the models are full; try again in {wait:?}")]
pub struct Saturated {
    /// When to come back.
    pub wait: Duration,
    /// Whether that time is kept for the request.
    pub booked: bool,
    /// Why.
    pub reason: Reason,
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It would have waited for too long.
    EstimatedWait,
    /// It would have waited beyond its deadline.
    Deadline,
    /// It has waited for longer than was estimated.
    Waited,
    /// No more requests are held in memory.
    QueueFull,
}
