use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What `/metrics` and `/health` report. Written by the engine thread, read by the HTTP side.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Answers that the engine has not finished: waiting and running. Most requests ask for one.
    pub(crate) unfinished: AtomicU64,
    /// Answers that hold one of the places.
    pub(crate) running: AtomicU64,
    /// Prompt tokens that the model has read.
    pub(crate) prompt_tokens: AtomicU64,
    /// Tokens that were generated.
    pub(crate) generation_tokens: AtomicU64,
    /// Tokens that the running requests hold in the cache.
    pub(crate) cached_tokens: AtomicU64,
    /// Decode steps, of any number of requests each.
    pub(crate) decode_steps: AtomicU64,
    /// Requests that ended because nobody wanted the rest.
    pub(crate) cancelled: AtomicU64,
    /// Whether the engine thread lives.
    pub(crate) alive: AtomicBool,
}

impl Counters {
    /// Relaxed everywhere: each number stands for itself. Where one must be seen before another, the registry's lock
    /// or the event channel orders them.
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(counter: &AtomicU64, amount: u64) {
        counter.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Counts a request of so many answers as unfinished, if there are fewer than `most`.
    pub(crate) fn try_begin(&self, answers: u64, most: u64) -> bool {
        let one_more = |unfinished: u64| (unfinished < most).then_some(unfinished + answers);
        self.unfinished
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// The metrics in Prometheus' text form, under vLLM's names where it has one.
    pub(crate) fn exposition(&self, model_name: &str, capacity_tokens: u64) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let running = read(&self.running);
        let waiting = read(&self.unfinished).saturating_sub(running);
        let usage = ratio(read(&self.cached_tokens), capacity_tokens);
        let model = model_name
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let mut text = String::with_capacity(2048);
        let mut metric = |name: &str, kind: &str, help: &str, value: String| {
            // Writing to a `String` cannot fail.
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{model_name=\"{model}\"}} {value}\n"
            );
        };
        metric(
            "vllm:num_requests_running",
            "gauge",
            "Requests being generated.",
            running.to_string(),
        );
        metric(
            "vllm:num_requests_waiting",
            "gauge",
            "Requests waiting for a place.",
            waiting.to_string(),
        );
        metric(
            "vllm:kv_cache_usage_perc",
            "gauge",
            "Share of the cache in use, 0 to 1.",
            usage.to_string(),
        );
        let totals = [
            (
                "vllm:prompt_tokens_total",
                "Prompt tokens read.",
                &self.prompt_tokens,
            ),
            (
                "vllm:generation_tokens_total",
                "Tokens generated.",
                &self.generation_tokens,
            ),
            (
                "llm_engine_worker:decode_steps_total",
                "Decode steps.",
                &self.decode_steps,
            ),
            (
                "llm_engine_worker:requests_cancelled_total",
                "Requests that were cancelled.",
                &self.cancelled,
            ),
        ];
        for (name, help, counter) in totals {
            metric(name, "counter", help, read(counter).to_string());
        }
        text
    }
}

/// Exact up to 2³² tokens, far beyond any cache.
fn ratio(part: u64, whole: u64) -> f64 {
    let as_float = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 {
        0.0
    } else {
        as_float(part) / as_float(whole)
    }
}
