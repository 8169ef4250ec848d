/// What came of a scenario, after its warm-up.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Requests.
    pub offered: u64,
    /// Calls, with those that came again.
    pub calls: u64,
    /// Answers that came in time.
    pub good: u64,
    /// Their tokens.
    pub good_tokens: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Calls whose client gave up waiting.
    pub hung_up: u64,
    /// Requests that got no answer.
    pub lost: u64,
    /// Seconds from calls to first tokens, sorted.
    pub first_tokens: Vec<f64>,
    /// Promised times at which a client came, and those of them that were kept.
    pub claimed: u64,
    /// Promised times that were kept.
    pub kept: u64,
    /// How often the engine put back an answer.
    pub preemptions: u64,
    /// By caller.
    pub callers: Vec<CallerOutcome>,
    /// By second, from the start.
    pub seconds: Vec<Second>,
    /// Good answers of each gateway.
    pub by_gateway: Vec<u64>,
    /// Seconds after the warm-up.
    pub lasted: f64,
}

/// What came of one caller.
#[derive(Debug, Clone, Default)]
pub struct CallerOutcome {
    /// Requests.
    pub offered: u64,
    /// Answers in time.
    pub good: u64,
    /// Work done for it: tokens read, and twice those written.
    pub served: u64,
    /// Seconds from calls to first tokens, sorted.
    pub first_tokens: Vec<f64>,
}

/// One second.
#[derive(Debug, Clone, Default)]
pub struct Second {
    /// Requests that came.
    pub offered: u64,
    /// Tokens of the good answers that ended.
    pub good_tokens: u64,
    /// Calls refused.
    pub refused: u64,
    /// At its end, of all gateways: the limit.
    pub limit: usize,
    /// What is in flight.
    pub in_flight: usize,
    /// Of that, late.
    pub waiting: usize,
    /// What is in the queue.
    pub queued: usize,
    /// Work done for each caller up to its end.
    pub served: Vec<u64>,
}

impl Outcome {
    /// Good answers a second.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let good = self.good as f64;
        good / self.lasted
    }

    /// Tokens of good answers a second.
    #[must_use]
    pub fn good_tokens_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let good = self.good_tokens as f64;
        good / self.lasted
    }

    /// Tokens of good answers a second, between two seconds.
    #[must_use]
    pub fn good_tokens_between(&self, from: usize, to: usize) -> f64 {
        let seconds = self
            .seconds
            .get(from..to.min(self.seconds.len()))
            .unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let mean =
            seconds.iter().map(|second| second.good_tokens).sum::<u64>() as f64 / seconds.len().max(1) as f64;
        mean
    }
}
